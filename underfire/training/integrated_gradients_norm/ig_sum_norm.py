"""IG-SUM-NORM (Chen et al., Robust Attribution Regularization, NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.catalog import card
from underfire.model import Classifier
from underfire.training.crafting import check_eps
from underfire.training.images import Data
from underfire.training.integrated_gradients_norm.attribution import path_norm, worst_attribution
from underfire.training.plan import USUAL, Plan
from underfire.training.steps import TrainingStep
from underfire.training.trainer import Training
from underfire.validate import at_least, at_least_one


@card(
    "training",
    paper="Chen, Wu, Rastogi, Liang and Jha, Robust Attribution Regularization, NeurIPS 2019",
    robust=True,
)
def ig_sum_norm(
    model: nn.Module,
    data: Data,
    *,
    weight: float = 0.1,
    points: int = 50,
    points_of_attack: int = 10,
    eps: float = 8 / 255,
    steps: int = 7,
    step_size: float | None = None,
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of perturbed images plus the norm of integrated gradients, both at their worst.

    The norm is `|IG(x, x')|_1` of the cross-entropy, from the image to its perturbed version. It costs second
    derivatives at all points of the path; the authors have the sums over the batch, and these are their means.

    Args:
        weight: the weight of the norm, the paper's beta; the authors have 0.1 for MNIST.
        points: gradients on the path from x to x'.
        points_of_attack: the same in the inner attack.
        step_size: length of one step of the inner attack; None is `2.5 * eps / steps`.

    Raises:
        InputError: a number is out of its range.
    """
    check_eps(eps)
    at_least(0, weight=weight)
    at_least_one(points=points, points_of_attack=points_of_attack, steps=steps)
    inner: dict[str, Any] = {
        "eps": eps,
        "steps": steps,
        "step_size": 2.5 * eps / steps if step_size is None else step_size,
    }

    def loss(step: TrainingStep) -> Tensor:
        x_adv = worst_attribution(
            step.model,
            step.x,
            step.y,
            points=points_of_attack,
            weight=weight,
            perturbed=True,
            generator=step.generator,
            **inner,
        )
        perturbed = F.cross_entropy(step.model(x_adv), step.y, reduction="none")
        return perturbed + weight * path_norm(step.model, step.x, x_adv, step.y, points)

    options = {**inner, "weight": weight, "points": (points, points_of_attack)}
    return Training("ig_sum_norm", model, data, plan, generator, options, eps=eps).run(loss)
