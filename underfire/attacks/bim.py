"""Basic iterative method (Kurakin et al., Adversarial Examples in the Physical World, ICLR Workshops 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objectives import Objective, log_odds
from underfire.ascent.step_rules import StepSize
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE, check_inputs, domain_of


def paper_steps(eps: float | Tensor) -> Tensor:
    """Return the paper's number of steps of one grey level, shaped like eps, at least 1.

    It is `min(eps + 4, 1.25 eps)` with eps in grey levels, rounded up.
    """
    levels = 255 * torch.as_tensor(eps, dtype=torch.float64)
    # An eps of 32/255 in single precision is slightly more than 32 grey levels; that must not add a step.
    return torch.minimum(levels + 4, 1.25 * levels).sub(1e-4).ceil().clamp_min(1).to(torch.int64)


@card(
    "attack",
    paper="Kurakin, Goodfellow and Bengio, Adversarial Examples in the Physical World, ICLR Workshops 2017",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
)
def bim(
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
    """Take FGSM steps from the clean image, and clip to eps and the box after each.

    Args:
        steps: number of steps; None is the paper's rule, `min(eps + 4, 1.25 eps)` with eps in grey levels.
        step_size: the paper's is one grey level.
        objective: None is `log_odds`, whose gradient has exactly the sign of the paper's cross-entropy.
    """
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, mask, among=("linf",)).in_domain(domain_of(model))
    threat.check(x)
    length: StepSize = step_size
    if steps is None:
        own = paper_steps(eps).to(x.device)
        steps = int(own.max()) if own.numel() else 1
        if own.dim():  # a sample with a smaller radius stands still after its own number of steps
            length = lambda step, steps: step_size * (step < own).to(x)  # noqa: E731
    return ascend(
        model, x, y, Recipe(objective or log_odds(), threat, step_rule=length, keep=keep), goal=goal, steps=steps
    )
