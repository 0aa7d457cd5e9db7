"""IG-NORM (Chen et al., Robust Attribution Regularization, NeurIPS 2019)."""

from __future__ import annotations

from torch import Generator, nn

from underfire.catalog import card
from underfire.model import Classifier
from underfire.training.images import Data
from underfire.training.integrated_gradients_norm.regularised import train_regularised
from underfire.training.plan import USUAL, Plan
from underfire.training.ramps import Ramp


@card(
    "training",
    paper="Chen, Wu, Rastogi, Liang and Jha, Robust Attribution Regularization, NeurIPS 2019",
    robust=True,
)
def ig_norm(
    model: nn.Module,
    data: Data,
    *,
    weight: float = 1.0,
    points: int = 50,
    points_of_attack: int = 10,
    eps: float = 8 / 255,
    steps: int = 7,
    step_size: float | None = None,
    ramp: Ramp = (0.0, 0.0),
    plan: Plan = USUAL,
    generator: Generator | None = None,
) -> Classifier:
    """Minimise the cross-entropy of clean images plus the largest norm of integrated gradients in the ball.

    The norm is `|IG(x, x')|_1` of the cross-entropy, from the image to its perturbed version. It costs second
    derivatives at all points of the path; the authors have the sums over the batch, and these are their means.

    Args:
        weight: the weight of the norm, the paper's lambda; the authors have 1 for MNIST.
        points: gradients on the path from x to x'.
        points_of_attack: the same in the inner attack.
        step_size: length of one step of the inner attack; None is `2.5 * eps / steps`, with the eps of the ramp.

    Raises:
        InputError: a number is out of its range.
    """
    return train_regularised(
        "ig_norm",
        model,
        data,
        plan,
        generator,
        perturbed=False,
        weight=weight,
        points=points,
        points_of_attack=points_of_attack,
        eps=eps,
        steps=steps,
        step_size=step_size,
        ramp=ramp,
    )
