"""Fast gradient sign method (Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE


@card(
    "attack",
    paper="Goodfellow, Shlens and Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
)
def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    objective: Objective | None = None,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take one step of size eps along the sign of the gradient, or along its direction.

    Args:
        norm: `"linf"` steps along the sign of the gradient, `"l2"` along its direction.
        objective: None is `log_odds`, whose gradient has the same signs as that of the paper's cross-entropy.
    """
    recipe = Recipe(objective or log_odds(), ball(norm, eps, mask, among=("linf", "l2")), step_rule=eps, keep="last")
    return ascend(model, x, y, recipe, goal=goal, steps=1)
