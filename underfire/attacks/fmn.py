"""FMN (Pintor et al., Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints, NeurIPS 2021)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.nearest import Nearest, differentiate_clean, max_distance
from underfire.ascent.objectives import margin
from underfire.ascent.step import Targets, succeeded, take, value_and_grad
from underfire.ascent.step_rules import cosine
from underfire.ascent.threats import Threat
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.gradients.smoothing import norms, unit
from underfire.hooks import frozen
from underfire.validate import at_least_one

#: DUAL is the order of the dual norm, in which gradients are measured; GAMMA_LAST is the value that gamma falls to.
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
GAMMA_LAST = 0.001


@card(
    "attack",
    paper="Pintor, Roli, Brendel and Biggio, Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints, "
    "NeurIPS 2021",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2", "linf", "l1", "l0"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
)
def fmn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int = 100,
    step_size: float = 1.0,
    gamma: float = 0.05,
    start: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Climb the margin in a ball that shrinks after a success and grows after a failure.

    Until the first success the radius is the distance to the boundary that the linearised margin predicts. The paper
    projects onto the ball and then clips; this projects onto ball and box together.

    Args:
        steps: number of steps; the paper has 1000.
        step_size: L2 length of the first step, in every norm; it falls to a hundredth along half a cosine.
        gamma: share by which the radius shrinks or grows in the first step; it falls to 0.001 along half a cosine.
        start: inputs to start from, shaped like `x`. One that succeeds is first moved towards the clean input, up to
            the boundary; one that does not succeed is replaced by the clean input. None is the clean inputs.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps)
    if not 0 < gamma < 1 or not step_size > 0:
        raise InputError(f"fmn needs gamma in (0, 1) and step_size > 0, got {gamma} and {step_size}")
    if start is not None and start.shape != x.shape:
        raise InputError(f"start must be shaped like the images, {tuple(x.shape)}, got {tuple(start.shape)}")
    nearest = Nearest(x.detach(), norm, eps, domain=domain_of(model))
    with frozen(model):
        targets, seen = differentiate_clean(model, x, y, goal, nearest, margin())
        rows = (~nearest.found).nonzero().squeeze(1)
        if len(rows) == 0:
            return nearest.x_adv
        targets, seen = targets.take(rows), take(seen, rows)
        x, threat, most = nearest.x[targets.index], nearest.threat, max_distance(nearest)[targets.index]
        z = x
        if start is not None:
            z = _boundary(model, x, threat.clip(x, start.detach().to(x)[targets.index]), threat, targets)
        alpha, share = cosine(step_size, step_size / 100), cosine(gamma, min(gamma, GAMMA_LAST))
        eps = threat.size(x, z).clamp_min(1)  # before the first update only L0 uses it
        ever = torch.zeros_like(targets.y, dtype=torch.bool)
        for step in range(steps):
            # forward and backward pass; record the successes
            logits, loss, g = seen if z is x else value_and_grad(model, margin(), z, targets)
            g = threat.restrict(g, x)
            success = succeeded(logits, targets.y, targets.goal)
            ever |= success
            size = threat.size(x, z)
            nearest.update(z, success, targets.index, size)
            # the next radius: smaller after a success, larger after a failure
            g_k = share(step, steps)
            if norm == "l0":
                larger, smaller = (eps * (1 + g_k)).floor().maximum(eps + 1), (eps * (1 - g_k)).floor().minimum(eps - 1)
            else:
                reach = size + loss.abs() / norms(g, DUAL[norm]).flatten().clamp_min(1e-12)
                # slightly beyond the predicted boundary: the predictions approach it from below, and rounding would
                # keep them there
                reach = reach * (1 + GAMMA_LAST)
                larger, smaller = torch.where(ever, eps * (1 + g_k), reach), eps * (1 - g_k)
            eps = torch.where(success, smaller.minimum(nearest.size[targets.index]), larger).minimum(most)
            # step along the gradient, and project onto the ball of this radius
            ahead = torch.add(z, unit(g, 2), alpha=alpha(step, steps))
            z = replace(threat, eps=eps).project(x, ahead)
        with torch.no_grad():
            nearest.update(z, succeeded(model(z), targets.y, targets.goal), targets.index)
    return nearest.x_adv


@torch.no_grad()
def _boundary(model: nn.Module, x: Tensor, start: Tensor, threat: Threat, targets: Targets) -> Tensor:
    """Return the nearest success among the projections of `start` onto balls around `x`, by bisection of the radius."""
    high = threat.size(x, start)
    low, usable = torch.zeros_like(high), succeeded(model(start), targets.y, targets.goal)
    for _ in range(10):
        middle = (low + high) / 2
        success = succeeded(model(replace(threat, eps=middle).project(x, start)), targets.y, targets.goal)
        low, high = torch.where(success, low, middle), torch.where(success, middle, high)
    high = torch.where(usable, high, 0)
    return replace(threat, eps=high).project(x, start)
