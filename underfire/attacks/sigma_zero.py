"""σ-zero (Cinà et al., σ-zero: Gradient-based Optimization of l0-norm Adversarial Examples, ICLR 2025)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.moves import adam
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.objectives import carlini
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
    paper="Cinà, Villani, Pintor, Schönherr, Biggio and Pelillo, σ-zero: Gradient-based Optimization of l0-norm "
    "Adversarial Examples, ICLR 2025",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l0",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
)
def sigma_zero(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l0",
    eps: float | Tensor | None = None,
    steps: int = 1000,
    step_size: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    rate: float = 0.01,
    generator: Generator | None = None,
) -> Tensor:
    """Run Adam on the margin and a smooth count of changed entries, and set small changes back to zero in every step.

    The order of the updates of the threshold, and the schedule, are those of the authors' code. Unlike theirs, the last
    iterate is evaluated too.

    Args:
        eps: the largest number of changed entries that counts, one number or one per sample `[B]`; None is any.
        step_size: size of Adam's first step; it falls to a tenth along half a cosine.
        sigma: smoothness of the count `sum d² / (d² + sigma)`.
        threshold: first threshold: changes below it are set back to zero; it rises after a success and falls after a
            failure.
        rate: by how much the threshold moves in a step, as a multiple of Adam's step size.

    Returns:
        The sparsest success of each sample, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps)
    if not (step_size > 0 and sigma > 0 and rate > 0 and 0 <= threshold <= 1):
        raise InputError(
            "sigma_zero needs step_size, sigma and rate > 0 and threshold in [0, 1], "
            f"got {step_size}, {sigma}, {rate} and {threshold}"
        )
    nearest = Nearest(x.detach(), norm, eps, among=("l0",), domain=domain_of(model))
    with frozen(model):
        _, at = evaluate_clean(model, x, y, goal, nearest)
        at = at.take((~nearest.found).nonzero().squeeze(1))
        if len(at.index) == 0:
            return nearest.x_adv
        x = nearest.x[at.index]
        z, tau, move = x, per_sample(x.new_full((len(x),), threshold), x), adam()
        state, eta = move.init(x), cosine(step_size, step_size / 10)
        for step in range(steps):
            # forward and backward pass; record the successes
            logits, _, g = value_and_grad(model, carlini(6), z, at)
            success = succeeded(logits, at.y, at.goal)
            nearest.update(z, success, at.index)
            d = z - x
            # subtract the gradient of the smooth count, divided by the number of entries
            g = g - 2 * sigma * d / (d.square() + sigma).square() / d[0].numel()
            # Adam's step on the normalised gradient
            direction, state = move.update(unit(g, math.inf), state)
            z = nearest.threat.clip(x, z + eta(step, steps + 1) * direction)
            # adapt the threshold, and set smaller changes back to zero
            change = rate * eta(step + 1, steps + 1)
            tau = (tau + torch.where(per_sample(success, z), change, -change).to(tau)).clamp(0, 1)
            z = torch.where((z - x).abs() < tau, x, z)
        with torch.no_grad():
            nearest.update(z, succeeded(model(z), at.y, at.goal), at.index)
    return nearest.x_adv
