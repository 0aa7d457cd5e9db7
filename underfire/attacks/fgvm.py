"""Fast gradient value method (Rozsa et al., CVPR Workshops 2016), normalised as in Miyato et al., ICLR 2016."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent.loop import Recipe, ascend
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.gradients.smoothing import normalise


@card(
    "attack",
    paper="Rozsa, Rudd and Boult, Adversarial Diversity and Hard Positive Generation, CVPR Workshops 2016",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2", "linf"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
)
def fgvm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor = 0.5,
    objective: Objective | None = None,
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take one step along the gradient itself, scaled to the length eps.

    On a linear model with one weight vector per class, such as `models.from_sklearn(LinearSVC(...))`, with
    `objective=objectives.logit()` and L2, this is the attack on support vector machines of Papernot, McDaniel and
    Goodfellow, Transferability in Machine Learning, 2016: `x - eps w[y] / |w[y]|`.

    Args:
        norm: the norm in which the length of the gradient and of the step is measured.
        eps: length of the step in that norm, one number or one per sample `[B]`.
        objective: None is `log_odds`, whose gradient points in the same direction as that of cross-entropy.
    """
    threat = ball(norm, eps, mask, among=("l2", "linf"))
    unit = normalise({"l2": 2.0, "linf": float("inf")}[norm])
    allowed = 1.0 if mask is None else mask
    # the move has no memory, and its direction is the gradient where the image may change, scaled to length one
    move = Move(lambda z: None, lambda g, state: (unit(g * allowed), state), steepest=False)
    return ascend(
        model, x, y, Recipe(objective or log_odds(), threat, step_rule=eps, move=move, keep="last"), goal=goal, steps=1
    )
