"""Threats: what an attacker may change, and by how much. A threat defines the variable `z` that an attack optimises.

`start(x) -> z`, `random_start(x, generator) -> z`, `apply(x, z) -> x'`, `project(x, z) -> z`, `steepest(g, x, z) -> d`,
`size(x, x') -> [B]`. For the norm balls of this file `z` is the perturbed input itself, of any number of dimensions.
Every projection is the nearest point (in L2) of the intersection of the ball and the box of the domain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from underfire.ascent.threat import Threat as Threat
from underfire.errors import Unsupported
from underfire.gradients.smoothing import norms, unit


def _widths(threat: Threat, x: Tensor) -> Tensor:
    """Return the width of the box of every entry of one input, float64, shaped like `x[0]`."""
    low, high = threat.domain.box(x)
    return (high.double() - low.double()).expand(x.shape[1:])


def _uniform(x: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _one_each(x: Tensor) -> tuple[int, ...]:
    """Return the shape of one number per sample that broadcasts against `x`."""
    return (len(x), *[1] * (x.dim() - 1))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of every row of `a` and `b` `[B, n]`, `[B, 1]`."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).squeeze(2)


def _signs(x: Tensor, generator: Generator | None) -> Tensor:
    """Return 1 or -1 at random for every entry."""
    return _uniform(x, generator).sub_(0.5).sign_()


class Linf(Threat):
    """Let every entry change by at most eps."""

    norm = "linf"

    def largest(self, x: Tensor) -> float:
        """Return the width of the box, of the widest entry."""
        return float(_widths(self, x).max())

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the allowed point nearest to `z`: every entry clipped to its interval."""
        return self.projection(x)(z)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `project` for these inputs, with the interval of every entry computed once."""
        radius, mask = self._radius(x), self.allowed(x)
        if mask is not None:
            radius = radius * mask
        low, high = (0, 1) if self.domain.unit_box else self.domain.box(x)
        least, most = (x - radius).clamp_min_(low), (x + radius).clamp_max_(high)
        return lambda z: z.clamp(least, most)

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return g.sign()

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        return (2 * _uniform(x, generator) - 1) * self._radius(x)


class L2(Threat):
    """Let the Euclidean length of the change be at most eps."""

    norm = "l2"

    def largest(self, x: Tensor) -> float:
        """Return the length of the diagonal of the box."""
        return float(_widths(self, x).norm())

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the allowed point nearest to `z`: the shift from `x`, scaled by one `t` per sample and clipped."""
        # An entry that the box clips at `t = 1` is clipped from some t on; its square is then that of the clipped
        # entry. With `u = t²`, the squared length is the sum of min(u * whole, clipped), which is concave in u and
        # piecewise linear. Newton's method from below finds in a few rounds where it is eps².
        inside, shift = self.clip(x, z), self.restrict(z - x, x)
        whole, clipped = shift.square().flatten(1), (inside - x).square_().flatten(1)
        limit, total = self._radius(x).flatten(1) ** 2, clipped.sum(1, keepdim=True)
        fits = total <= limit
        if bool(fits.all()):
            return inside
        tiny = torch.finfo(x.dtype).tiny
        u = (limit / whole.sum(1, keepdim=True).clamp_min(tiny)).clamp_max(1)
        for _ in range(100):
            free = (u * whole <= clipped).to(x.dtype)
            held = _dot(1 - free, clipped)  # not the total without the free entries, whose rounding is no zero
            grown = ((limit - held) / _dot(free, whole).clamp_min(tiny)).clamp(max=1).maximum(u)
            if torch.equal(grown, u):  # exact equality: no sample depends on the rest of the batch
                break
            u = grown
        t = torch.where(fits, 1, u.sqrt())
        return self.clip(x, torch.addcmul(x, t.view(_one_each(x)), shift))

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return unit(g, 2)

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        direction = allowed * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        depth = torch.rand(_one_each(x), generator=generator, dtype=x.dtype, device=x.device)
        return unit(direction, 2) * self._radius(x) * depth ** (1 / norms(allowed, 1).clamp_min(1))


@dataclass(frozen=True)
class L1(Threat):
    """Let the sum of the absolute changes be at most eps.

    Attributes:
        sparsity: share of the entries that one step moves. The exact steepest step moves one entry only, which is slow;
            the default moves the 1 % with the largest gradient, as in Tramer and Boneh, Adversarial Training and
            Robustness for Multiple Perturbations, NeurIPS 2019.
    """

    sparsity: float = 0.01
    norm = "l1"

    def largest(self, x: Tensor) -> float:
        """Return the sum of the widths of the box."""
        return float(_widths(self, x).sum())

    def _project(self, x: Tensor, shift: Tensor) -> Tensor:
        # The nearest point is sign(shift) * min(max(|shift| - t, 0), room): find the t at which its L1 norm is eps.
        down, up = self.room(x)
        radius, room, length = self._radius(x), torch.where(shift > 0, up, -down), shift.abs()

        def shrunk(t: Tensor) -> Tensor:
            return (length - t).clamp_min(0).minimum(room)

        low = torch.zeros_like(radius).expand(len(x), *radius.shape[1:])
        if bool((norms(shrunk(low), 1) <= radius).all()):
            return shrunk(low) * shift.sign()
        inside = norms(shrunk(low), 1) <= radius
        high = norms(length, math.inf)
        for _ in range(30):
            middle = (low + high) / 2
            over = norms(shrunk(middle), 1) > radius
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        # Between two breakpoints the sum is linear in t, so one Newton step from inside the interval is exact.
        free = ((length - high > 0) & (length - high < room)).flatten(1).sum(1).reshape_as(high)
        t = high - (radius - norms(shrunk(high), 1)) / free.clamp_min(1)
        t = torch.where(inside, torch.zeros_like(t), torch.where(free > 0, t.clamp(min=low, max=high), high))
        return shrunk(t) * shift.sign()

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        low, high = self.room(z)
        movable = torch.where(g > 0, high > 0, low < 0)
        strength = (g.abs() * movable).flatten(1)
        count = max(1, round(self.sparsity * strength.shape[1]))
        best = strength.topk(count, dim=1).indices
        direction = torch.zeros_like(strength).scatter_(1, best, 1 / count)
        return direction.view_as(g) * g.sign() * movable

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        # Exponential draws divided by their sum are uniform on the simplex; one more draw in the sum, and inside it.
        spacing = -torch.log1p(-_uniform(x, generator)) * allowed
        spare = -torch.log1p(-torch.rand(_one_each(x), generator=generator, dtype=x.dtype, device=x.device))
        return spacing / (norms(spacing, 1) + spare) * _signs(x, generator) * self._radius(x)


class L0(Threat):
    """Let at most eps entries change, to any value of the box; an entry of an image is one channel of one pixel."""

    norm = "l0"

    def largest(self, x: Tensor) -> float:
        """Return the number of entries."""
        return float(x[0].numel())

    def _project(self, x: Tensor, shift: Tensor) -> Tensor:
        # Keeping an entry lowers the squared distance to `z` by shift², less the square of what the box clips.
        low, high = self.room(x)
        clipped = torch.minimum(torch.maximum(shift, low), high)
        saved = (shift**2 - (shift - clipped) ** 2).flatten(1)
        order = saved.argsort(dim=1, descending=True)
        places = torch.arange(saved.shape[1], device=x.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places)
        return clipped * (rank < self._radius(x).flatten(1).floor()).view_as(x)

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Return how many entries differ, `[B]`."""
        return (x_adv != x).flatten(1).sum(1).to(x.dtype)

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        # The L0 norm allows steps of any length, so take the gradient itself, scaled to a largest entry of one: the
        # projection then keeps the entries that changed most.
        return unit(g, math.inf)

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        draw = _uniform(x, generator) + (1 - allowed)  # entries that may not change come last
        chosen = draw.flatten(1).argsort(1).argsort(1).view_as(x) < self._radius(x).floor()
        low, high = self.room(x)
        return (low + (high - low) * _uniform(x, generator)) * chosen


BALLS: dict[str, type[Threat]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def ball(norm: str, eps: float | Tensor, mask: Tensor | None = None, among: tuple[str, ...] = tuple(BALLS)) -> Threat:
    """Return the threat of a norm.

    Raises:
        Unsupported: the norm is not one of `among`, the norms that the caller supports.
    """
    if norm not in among:
        raise Unsupported(f"norm {norm!r} is not supported here; choices: {', '.join(among)}")
    return BALLS[norm](eps, mask)
