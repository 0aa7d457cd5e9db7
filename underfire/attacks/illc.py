"""Iterative least-likely class method (Kurakin, Goodfellow and Bengio, ICLR Workshops 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep
from underfire.ascent.objectives import Objective
from underfire.attacks.bim import bim
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs
from underfire.errors import Unsupported
from underfire.hooks import frozen
from underfire.validate import check_classes


def least_likely(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the class that the model finds least likely for each input, never `y` itself, int64 `[B]`."""
    check_inputs(model, x, y)
    if len(x) == 0:
        return y
    with torch.no_grad(), frozen(model):
        logits = model(x)
    check_classes(logits, y)
    return logits.scatter(1, y[:, None], float("inf")).argmin(1)


@card(
    "attack",
    paper="Kurakin, Goodfellow and Bengio, Adversarial Examples in the Physical World, ICLR Workshops 2017",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf",),
    goals=("untargeted",),
    random=False,
    atlas="AML.T0043.000",
)
def illc(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    steps: int | None = None,
    step_size: float = 1 / 255,
    objective: Objective | None = None,
    keep: Keep = "last",
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Run BIM towards the class that the model finds least likely for the clean image, never `y` itself.

    Args:
        goal: must be None; the method chooses its goal.
        steps: number of steps; None is the paper's rule, `min(eps + 4, 1.25 eps)` with eps in grey levels.
        step_size: the paper's is one grey level.
        objective: None is `log_odds`, whose gradient has exactly the sign of the paper's cross-entropy.
        keep: `"best"` and `"success"` count an iterate as a success if it reaches the least likely class.

    Raises:
        Unsupported: a goal is given.
    """
    if goal is not None:
        raise Unsupported("illc chooses the goal itself, the least likely class; use bim to choose another goal")
    least = least_likely(model, x, y)
    return bim(
        model,
        x,
        y,
        goal=least,
        norm=norm,
        eps=eps,
        steps=steps,
        step_size=step_size,
        objective=objective,
        keep=keep,
        mask=mask,
    )
