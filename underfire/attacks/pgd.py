"""PGD (Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, margin
from underfire.ascent.step_rules import StepSize
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.gradients.estimators import Estimator, autograd


@card(
    "attack",
    paper="Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, "
    "ICLR 2018",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2", "l1"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
)
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int = 40,
    step_size: StepSize | None = None,
    objective: Objective | None = None,
    estimate: Estimator = autograd,
    keep: Keep = "best",
    restarts: int = 1,
    random_start: bool = True,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take steps along the steepest direction of the norm, and project each onto the ball and the box.

    Args:
        step_size: None is `2.5 * eps / steps`.
        objective: None is the margin.
        estimate: how the gradient is obtained; `estimators.nes()` makes this a black-box attack.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    return ascend(
        model,
        x,
        y,
        Recipe(
            objective or margin(),
            ball(norm, eps, mask, among=("linf", "l2", "l1")),
            step_rule=2.5 * eps / steps if step_size is None else step_size,
            estimate=estimate,
            keep=keep,
        ),
        goal=goal,
        steps=steps,
        restarts=restarts,
        random_start=random_start,
        generator=generator,
    )
