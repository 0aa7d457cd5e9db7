"""The training that IG-NORM and IG-SUM-NORM share."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.model import Classifier
from underfire.training.crafting import check_eps
from underfire.training.images import Data
from underfire.training.integrated_gradients_norm.attribution import path_norm, worst_attribution
from underfire.training.plan import Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least, at_least_one


def train_regularised(
    method: str,
    model: nn.Module,
    data: Data,
    plan: Plan,
    generator: Generator | None,
    *,
    perturbed: bool,
    weight: float,
    points: int,
    points_of_attack: int,
    eps: float,
    steps: int,
    step_size: float | None,
) -> Classifier:
    """Minimise the cross-entropy plus the norm of the integrated gradients to the worst image of the ball.

    Args:
        perturbed: whether the cross-entropy is that of the worst image, which then maximises it, too.

    The other arguments are those of the methods.
    """
    check_eps(eps)
    at_least(0, weight=weight)
    at_least_one(points=points, points_of_attack=points_of_attack, steps=steps)
    length = 2.5 * eps / steps if step_size is None else step_size
    inner: dict[str, Any] = {"eps": eps, "steps": steps, "step_size": length}

    def loss(step: TrainingStep) -> Tensor:
        x_adv = worst_attribution(
            step.model,
            step.x,
            step.y,
            points=points_of_attack,
            weight=weight,
            perturbed=perturbed,
            generator=step.generator,
            **inner,
        )
        entropy = F.cross_entropy(step.model(x_adv if perturbed else step.x), step.y, reduction="none")
        return entropy + weight * path_norm(step.model, step.x, x_adv, step.y, points)

    options = {**inner, "weight": weight, "points": (points, points_of_attack)}
    return Training(method, model, data, plan, generator, options, eps=eps).run(loss)
