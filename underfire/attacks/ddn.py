"""DDN (Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2 Attacks, CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.nearest import Nearest, evaluate_clean, max_distance
from underfire.ascent.objectives import log_odds
from underfire.ascent.step import succeeded, value_and_grad
from underfire.ascent.step_rules import cosine
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.smoothing import unit
from underfire.hooks import frozen
from underfire.validate import at_least_one, per_sample


@card(
    "attack",
    paper="Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger, Decoupling Direction and Norm for Efficient "
    "Gradient-Based L2 Adversarial Attacks and Defenses, CVPR 2019",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
)
def ddn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int = 100,
    gamma: float = 0.05,
    first: float = 1.0,
    levels: int | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Step along the gradient, and set the length of the perturbation separately in every step.

    The length shrinks after a success and grows after a failure. The gradient is that of the log-odds, which has the
    direction of the paper's cross-entropy but does not vanish on a confident network; only its direction is used. If it
    is zero, the direction stays as it is (the authors' code draws a random one).

    Args:
        steps: number of steps; the paper has 100, 300 and 1000.
        gamma: share by which the length changes in a step.
        first: length of the first perturbation.
        levels: number of grey levels that every iterate is rounded to; None does not round. The paper's images have
            256.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps)
    if not 0 < gamma < 1 or not first > 0 or (levels is not None and levels < 2):
        raise InputError(f"ddn needs gamma in (0, 1), first > 0, levels >= 2; got {gamma}, {first} and {levels}")
    nearest = Nearest(x.detach(), norm, eps, among=("l2",), domain=domain_of(model))
    with frozen(model):
        _, at = evaluate_clean(model, x, y, goal, nearest)
        at = at.take((~nearest.found).nonzero().squeeze(1))
        if len(at.index) == 0:
            return nearest.x_adv
        x, most = nearest.x[at.index], max_distance(nearest)[at.index]
        z, length, alpha = x, most.clamp_max(first), cosine(1.0, 0.01)
        for step in range(steps):
            # forward and backward pass; record the successes
            logits, _, g = value_and_grad(model, log_odds(), z, at)
            success = succeeded(logits, at.y, at.goal)
            nearest.update(z, success, at.index)
            # shrink or grow the length, and rescale the new direction to it
            length = torch.where(success, length * (1 - gamma), length * (1 + gamma)).minimum(most)
            direction = z - x + alpha(step, steps) * unit(nearest.threat.restrict(g, x), 2)
            z = nearest.threat.clip(x, x + per_sample(length, x) * unit(direction, 2))
            if levels is not None:
                z = (z * (levels - 1)).round_() / (levels - 1)
        with torch.no_grad():
            nearest.update(z, succeeded(model(z), at.y, at.goal), at.index)
    return nearest.x_adv
