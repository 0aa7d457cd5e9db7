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
from underfire.training.ramps import Ramp, check_ramp, ramped
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
    ramp: Ramp,
) -> Classifier:
    """Minimise the cross-entropy plus the norm of the integrated gradients to the worst image of the ball.

    Args:
        perturbed: whether the cross-entropy is that of the worst image, which then maximises it, too.

    The other arguments are those of the methods.
    """
    check_eps(eps)
    at_least(0, weight=weight)
    at_least_one(points=points, points_of_attack=points_of_attack, steps=steps)
    check_ramp(ramp)
    attack: dict[str, Any] = {"points": points_of_attack, "weight": weight, "perturbed": perturbed, "steps": steps}

    def loss(step: TrainingStep) -> Tensor:
        size = eps * ramped(step.number / step.steps, ramp)
        if size == 0:
            return F.cross_entropy(step.model(step.x), step.y, reduction="none")
        length = 2.5 * size / steps if step_size is None else step_size
        x_adv = worst_attribution(
            step.model, step.x, step.y, **attack, eps=size, step_size=length, generator=step.generator
        )
        entropy = F.cross_entropy(step.model(x_adv if perturbed else step.x), step.y, reduction="none")
        return entropy + weight * path_norm(step.model, step.x, x_adv, step.y, points)

    options = {**attack, "eps": eps, "step_size": step_size, "ramp": ramp, "points of the loss": points}
    return Training(method, model, data, plan, generator, options, eps=eps).run(loss)
