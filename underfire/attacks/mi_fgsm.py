"""Momentum iterative FGSM (Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018)."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError


@card(
    "attack",
    paper="Dong, Liao, Pang, Su, Zhu, Hu and Li, Boosting Adversarial Attacks with Momentum, CVPR 2018",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
)
def mi_fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 10,
    decay: float = 1.0,
    objective: Objective | None = None,
    keep: Keep = "last",
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Take steps of `eps / steps` along the accumulated gradient; each gradient is divided by its L1 norm first.

    Args:
        norm: `"linf"` steps along the sign of the accumulated gradient, `"l2"` along its direction.
        decay: share of the accumulated gradient that is kept in each step, the paper's mu.
        objective: None is `log_odds`, whose gradient equals that of the paper's cross-entropy after normalising.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    return ascend(
        model,
        x,
        y,
        Recipe(
            objective or log_odds(),
            ball(norm, eps, mask, among=("linf", "l2")),
            step_rule=eps / steps,
            move=moves.momentum(decay),
            keep=keep,
        ),
        goal=goal,
        steps=steps,
    )
