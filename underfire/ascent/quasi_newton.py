"""Minimise by L-BFGS in a box, for many samples at once, each with its own memory and line search.

Source: Liu and Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization, Mathematical Programming 1989;
gradient projection keeps the bounds (Bertsekas, SIAM Journal on Control and Optimization 1982).
"""

from __future__ import annotations

import torch
from torch import Tensor


class QuasiNewton:
    """Minimise a function of each sample; the caller evaluates it at `trial` and reports the result by `tell`.

    A sample whose trial meets the Armijo condition moves there and takes a new direction; the others try again with a
    shorter step. No sample waits for another, so the result of a sample does not depend on the rest of the batch.

    Args:
        z: where to start, `[B, ...]`.
        low: smallest allowed values, broadcastable to `z`; None means no bound.
        high: largest allowed values.
        step_size: largest change of an entry in the first trial, before the curvature is known; a number or one
            per sample `[B]`.
        memory: how many pairs of steps and gradient changes are kept.

    Attributes:
        trial: the points at which value and gradient are needed next, `[B, ...]`.
        z: the best points so far, `[B, ...]`.
        value: the values at `z`, `[B]`; infinite before the first `tell`.
        done: whether a sample has no direction left that lowers its value, bool `[B]`.
    """

    def __init__(
        self,
        z: Tensor,
        low: Tensor | float | None = None,
        high: Tensor | float | None = None,
        *,
        step_size: float | Tensor = 0.1,
        memory: int = 10,
    ) -> None:
        self._shape = z.shape[1:]
        count = len(z)

        def bound(limit: Tensor | float | None, otherwise: float) -> Tensor:
            limit = otherwise if limit is None else limit
            return torch.as_tensor(limit, dtype=z.dtype, device=z.device).expand_as(z).flatten(1)

        self._low, self._high = bound(low, float("-inf")), bound(high, float("inf"))
        self._z = z.detach().flatten(1).clamp(self._low, self._high)
        self._size = torch.as_tensor(step_size, dtype=z.dtype, device=z.device).expand(count)
        self.value = z.new_full((count,), float("inf"))
        self.done = torch.zeros(count, dtype=torch.bool, device=z.device)
        self._g = torch.zeros_like(self._z)
        self._d = torch.zeros_like(self._z)
        self._t = z.new_ones(count)
        self._steps = z.new_zeros(memory, *self._z.shape)
        self._changes = torch.zeros_like(self._steps)
        self._pairs = torch.zeros(count, dtype=torch.int64, device=z.device)  # written so far

    @property
    def z(self) -> Tensor:
        """Return the best points so far, `[B, ...]`."""
        return self._z.unflatten(1, self._shape)

    @property
    def trial(self) -> Tensor:
        """Return the points at which value and gradient are needed next, `[B, ...]`."""
        return self._trial().unflatten(1, self._shape)

    def take(self, rows: Tensor) -> None:
        """Keep only the samples at `rows`."""
        for name in ("_low", "_high", "_z", "_size", "value", "done", "_g", "_d", "_t", "_pairs"):
            setattr(self, name, getattr(self, name)[rows])
        self._steps, self._changes = self._steps[:, rows], self._changes[:, rows]

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Take value `[B]` and gradient `[B, ...]` at `trial`, and choose the next trial; NaN counts as too high."""
        g, trial = gradient.flatten(1), self._trial()
        slope = (self._g * (trial - self._z)).sum(1)
        better = (value <= self.value + 1e-4 * slope) & ~self.done & torch.isfinite(g).all(1)
        step, change = trial - self._z, g - self._g
        self._remember(step, change, better & torch.isfinite(self.value))
        shorter = _parabola(self._t, slope, value - self.value)
        self._z = torch.where(better[:, None], trial, self._z)
        self._g = torch.where(better[:, None], g, self._g)
        self.value = torch.where(better, value, self.value)
        self._t = torch.where(better, 1, shorter)
        # Where even a tiny step does not lower the value, the stored curvature is wrong: discard it.
        lost = ~better & (self._t < 1e-6)
        self.done = self.done | (lost & (self._pairs == 0))
        self._pairs = torch.where(lost, 0, self._pairs)
        self._t = torch.where(lost, 1, self._t)
        # choose a new direction where the sample has moved or lost its curvature
        redirected = better | lost
        if bool(redirected.any()):
            self._d = torch.where(redirected[:, None], self._direction(), self._d)
        self.done = self.done | (self._d == 0).all(1)

    def _trial(self) -> Tensor:
        return (self._z + self._t[:, None] * self._d).clamp(self._low, self._high)

    def _remember(self, step: Tensor, change: Tensor, moved: Tensor) -> None:
        """Store the step and the gradient change of samples that moved, where their curvature is positive."""
        curved = moved & ((step * change).sum(1) > 1e-10 * step.norm(dim=1) * change.norm(dim=1))
        rows = curved.nonzero().squeeze(1)
        slot = self._pairs[rows] % len(self._steps)
        self._steps[slot, rows], self._changes[slot, rows] = step[rows], change[rows]
        self._pairs[rows] += 1

    def _direction(self) -> Tensor:
        """Return the direction of the two-loop recursion, on the entries that the box leaves free."""
        g = self._g
        free = ~(((self._z <= self._low) & (g > 0)) | ((self._z >= self._high) & (g < 0)))
        q = g * free
        downhill = -q * (self._size / q.abs().amax(1).clamp_min(torch.finfo(q.dtype).tiny))[:, None]
        everyone = torch.arange(len(q), device=q.device)
        scale = torch.zeros_like(self._t)
        history: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for back in range(1, len(self._steps) + 1):
            slot = (self._pairs - back).remainder(len(self._steps))
            s, y = self._steps[slot, everyone] * free, self._changes[slot, everyone] * free
            sy = (s * y).sum(1)
            usable = (self._pairs >= back) & (sy > 0)
            inverse = torch.where(usable, 1 / torch.where(usable, sy, 1), 0)
            a = inverse * (s * q).sum(1)
            q = q - a[:, None] * y
            newest = usable & (scale == 0)
            scale = torch.where(newest, sy / torch.where(newest, (y * y).sum(1), 1), scale)
            history.append((s, y, inverse, a))
            if not bool((self._pairs > back).any()):
                break
        r = q * scale[:, None]
        for s, y, inverse, a in reversed(history):
            r = r + (a - inverse * (y * r).sum(1))[:, None] * s
        d = -r * free
        useful = (scale > 0) & ((d * g).sum(1) < 0) & torch.isfinite(d).all(1)
        return torch.where(useful[:, None], d, downhill)


def _parabola(t: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
    """Return the next step length: the minimum of the parabola through the known values, clamped to [t/10, t/2]."""
    best = -slope * t / (2 * (rise - slope))
    return torch.where(torch.isfinite(best), best, t / 10).clamp(min=t / 10, max=t / 2)
