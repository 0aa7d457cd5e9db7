"""Search for the nearest success in L2 with direction and length apart (Rony et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import nn

from underfire.ascent.nearest import Nearest, max_distance
from underfire.ascent.objectives import log_odds
from underfire.ascent.step import Targets, succeeded, value_and_grad
from underfire.ascent.step_rules import cosine
from underfire.gradients.smoothing import norms, unit
from underfire.validate import per_sample


def descend(
    model: nn.Module,
    at: Targets,
    nearest: Nearest,
    steps: int,
    *,
    gamma: float = 0.05,
    first: float = 1.0,
    levels: int | None = None,
) -> None:
    """Step along the gradient of the log-odds, and set the length separately: shorter after a success, else longer.

    Args:
        at: the samples to change.
        nearest: where the nearest successes are kept.
        steps: number of steps.
        gamma: share by which the length changes in a step.
        first: length of the first perturbation.
        levels: number of grey levels that every iterate is rounded to; None does not round.
    """
    x, most = nearest.x[at.index], max_distance(nearest)[at.index]
    z, length, alpha = x, most.clamp_max(first), cosine(1.0, 0.01)
    for step in range(steps):
        # forward and backward pass; record the successes
        logits, _, g = value_and_grad(model, log_odds(), z, at)
        success = succeeded(logits, at.y, at.goal)
        nearest.update(z, success, at.index, nearest.threat.size(x, z))
        # shrink or grow the length, and rescale the new direction to it
        length = torch.where(success, length * (1 - gamma), length * (1 + gamma)).minimum(most)
        direction = torch.add(z - x, unit(nearest.threat.restrict(g, x), 2), alpha=alpha(step, steps))
        scale = per_sample(length, x) / norms(direction, 2).clamp_min(torch.finfo(x.dtype).tiny)
        z = nearest.threat.clip(x, torch.addcmul(x, scale, direction))
        if levels is not None:
            z = (z * (levels - 1)).round_() / (levels - 1)
    with torch.no_grad():
        nearest.update(z, succeeded(model(z), at.y, at.goal), at.index)
