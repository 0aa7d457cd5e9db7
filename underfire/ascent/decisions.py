"""Shared parts of decision-based attacks: adversarial starting points, and the search for the decision boundary."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from underfire.ascent.nearest import Nearest
from underfire.ascent.queries import Queries
from underfire.errors import DataError
from underfire.gradients.smoothing import norms
from underfire.validate import default_generator, per_sample


def find_starts(
    query: Queries, x: Tensor, nearest: Nearest, starts: Tensor | None, draws: int, generator: Generator | None
) -> None:
    """Find a start for as many samples as possible, an input that already is a success, and record it in `nearest`.

    Each attempt costs one query, and is made only for samples that have no success yet: the clean input, the given
    start, `draws` random inputs, and the nearest input of the batch whose class is a success (before the random ones if
    there is a goal). The random inputs take turns: uniform, around a random colour, and black and white.

    Raises:
        DataError: the given starts do not have the shape of `x`, or leave the box.
    """
    domain, generator = nearest.threat.domain, default_generator(generator, x.device)
    if starts is not None and (starts.shape != x.shape or not bool(domain.contains(starts).all())):
        raise DataError(f"starts must be inputs in the box, of shape {list(x.shape)}, got {list(starts.shape)}")
    if len(x) == 0:
        return
    low, high = domain.box(x)

    def attempt(candidates: Tensor, index: Tensor) -> Tensor:
        candidates = nearest.threat.clip(x[index], candidates)
        logits = query(candidates, index)
        nearest.update(candidates, query.reached(logits, index), index)
        return logits

    def lost() -> Tensor:
        return (~nearest.found & (query.left > 0)).nonzero().squeeze(1)

    predicted = attempt(x, torch.arange(len(x), device=x.device)).argmax(1)
    if starts is not None and len(index := lost()):
        attempt(starts[index].to(x), index)

    def from_batch() -> None:
        if len(index := lost()) == 0:
            return
        right = predicted != query.y[index, None] if query.goal is None else predicted == query.goal[index, None]
        far = torch.cdist(x[index].flatten(1), x.flatten(1)).masked_fill(~right, float("inf"))
        distance, row = far.min(1)
        attempt(x[row[distance.isfinite()]], index[distance.isfinite()])

    def from_noise() -> None:
        for draw in range(draws):
            if len(index := lost()) == 0:
                return
            noise = torch.rand(x[index].shape, generator=generator, device=x.device, dtype=x.dtype)
            if draw % 3 == 2:
                noise = noise.round()
            elif draw % 3 == 1:
                shape = (len(index), x.shape[1] + 1, *[1] * (x.dim() - 2))
                colour = torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype)
                noise = (colour[:, 1:] + colour[:, :1] * (noise - 0.5)).clamp(0, 1)
            attempt(low + (high - low) * noise, index)

    for source in (from_noise, from_batch) if query.goal is None else (from_batch, from_noise):
        source()


def within(nearest: Nearest, eps: float | Tensor | None) -> Tensor:
    """Return the nearest success of every sample, shaped like `x`, or its clean image if there is none within eps."""
    limited = Nearest(nearest.x, nearest.threat.norm, eps, domain=nearest.threat.domain)
    limited.update(nearest.x_adv, nearest.found)
    return limited.x_adv


def blend(x: Tensor, z: Tensor, share: Tensor, norm: str) -> Tensor:
    """Return the points at a share `[M]` of the way from `x` to `z`: on the line for L2, in a smaller cube for Linf."""
    share = per_sample(share, x)
    if norm == "l2":
        return x + share * (z - x)
    far = norms(z - x, math.inf)
    return torch.minimum(torch.maximum(z, x - share * far), x + share * far)


def approach(query: Queries, x: Tensor, z: Tensor, index: Tensor, norm: str, threshold: float) -> Tensor:
    """Bisect from successes `z` towards their images `x`, and return the last success of each.

    A sample stops when its interval is shorter than the share `threshold` of the whole line, or its queries are spent.

    Args:
        x: clean inputs `[M, ...]`.
        z: a success for each of them.
        index: the samples that they belong to, none twice.
        norm: `"l2"` bisects along the line, `"linf"` the radius of a cube that clips `z`.
        threshold: the share of the line at which a sample stops.
    """
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    threshold = max(threshold, 2 * torch.finfo(x.dtype).eps)
    while True:
        rows = ((high - low > threshold) & (query.left[index] > 0)).nonzero().squeeze(1)
        if len(rows) == 0:
            return blend(x, z, high, norm).where(per_sample(high < 1, z), z)
        middle = (low[rows] + high[rows]) / 2
        reached = query.reached(query(blend(x[rows], z[rows], middle, norm), index[rows]), index[rows])
        low[rows], high[rows] = torch.where(reached, low[rows], middle), torch.where(reached, middle, high[rows])
