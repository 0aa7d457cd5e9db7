"""Minimise by L-BFGS in a box, for many samples at once, each with its own memory and line search.

Source: Liu and Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization, Mathematical Programming 1989;
gradient projection keeps the bounds (Bertsekas, SIAM Journal on Control and Optimization 1982); compact form (Byrd,
Nocedal and Schnabel, Representations of Quasi-Newton Matrices, Mathematical Programming 1994).
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
        """Return the quasi-Newton direction on the entries that the box leaves free, by the compact form of L-BFGS.

        With the stored steps S and gradient changes Y as columns, the oldest first, R the upper triangle of SᵀY and D
        its diagonal: H q = γ q + S R⁻ᵀ ((D + γ YᵀY) p - γ Yᵀq) - γ Y p with p = R⁻¹ Sᵀq, which is what the recursion
        over the pairs computes, in a few products of small matrices.
        """
        g, memory = self._g, len(self._steps)
        free = ~(((self._z <= self._low) & (g > 0)) | ((self._z >= self._high) & (g < 0)))
        q = g * free
        downhill = -q * (self._size / q.abs().amax(1).clamp_min(torch.finfo(q.dtype).tiny))[:, None]
        kept = min(memory, int(self._pairs.max())) if len(q) else 0
        if kept == 0:
            return downhill
        # the stored pairs, `[B, kept, n]`; one without positive curvature on the free entries becomes zero
        age = torch.arange(kept, 0, -1, device=q.device)
        slot, everyone = (self._pairs[:, None] - age).remainder(memory), torch.arange(len(q), device=q.device)[:, None]
        s, y = self._steps[slot, everyone] * free[:, None], self._changes[slot, everyone] * free[:, None]
        usable = (self._pairs[:, None] >= age) & ((s * y).sum(2) > 0)
        s, y = s * usable[:, :, None], y * usable[:, :, None]
        sy, yy = s @ y.mT, y @ y.mT
        curvature = sy.diagonal(dim1=1, dim2=2)
        # the scale is that of the newest pair; a pair that is zero gets a row of the identity, so that R has an inverse
        newest = (usable * torch.arange(1, kept + 1, device=q.device)).argmax(1, keepdim=True)
        scale = (curvature / yy.diagonal(dim1=1, dim2=2)).nan_to_num(0.0).gather(1, newest)[:, :, None]
        upper = sy.triu() + torch.diag_embed((~usable).to(q.dtype))
        # the product of the inverse Hessian with the gradient
        p = torch.linalg.solve_triangular(upper, s @ q[:, :, None], upper=True)
        v = curvature[:, :, None] * p + scale * (yy @ p - y @ q[:, :, None])
        w = torch.linalg.solve_triangular(upper.mT, v, upper=False)
        d = -(scale * (q[:, :, None] - y.mT @ p) + s.mT @ w).squeeze(2)
        useful = (scale[:, 0, 0] > 0) & ((d * g).sum(1) < 0) & torch.isfinite(d).all(1)
        return torch.where(useful[:, None], d, downhill)


def _parabola(t: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
    """Return the next step length: the minimum of the parabola through the known values, clamped to [t/10, t/2]."""
    best = -slope * t / (2 * (rise - slope))
    return torch.where(torch.isfinite(best), best, t / 10).clamp(min=t / 10, max=t / 2)
