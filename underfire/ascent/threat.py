"""The base of every threat: the box of the domain, the mask, the size of a change, and the check of eps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from underfire.domains import IMAGES, Domain
from underfire.errors import InputError
from underfire.gradients.smoothing import norms
from underfire.validate import check_number, per_sample


@dataclass(frozen=True)
class Threat:
    """A norm ball around the input, intersected with the box of the domain.

    Attributes:
        eps: radius, one number or one per sample `[B]`, in units of the input (for L0 a count of entries).
        mask: where the input may change, 0 or 1, broadcastable to it; None is everywhere.
        domain: the kind of input: its box, and the columns that never change.
    """

    eps: float | Tensor
    mask: Tensor | None = None
    domain: Domain = field(default=IMAGES, kw_only=True)
    norm: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_number(eps=self.eps)

    def largest(self, x: Tensor) -> float:
        """Return the size of the change of a whole input: the largest eps that has a meaning; infinite if none has."""
        return math.inf

    def check(self, x: Tensor) -> None:
        """Raise InputError unless eps and mask fit the images, and eps is no larger than a whole image."""
        eps = torch.as_tensor(self.eps)
        if eps.dim() > 0 and eps.shape != (len(x),):
            raise InputError(f"eps must be one number or one per sample [{len(x)}], got shape {tuple(eps.shape)}")
        wrong = ~(torch.isfinite(eps) & (eps >= 0))
        if bool(wrong.any()):
            raise InputError(f"eps must be >= 0 and finite, got {float(eps[wrong][0]):g}")
        if len(x) and bool((eps > self.largest(x) * (1 + 1e-5)).any()):
            raise InputError(self._too_large(float(eps.max()), self.largest(x)))
        if self.mask is not None:
            try:
                fits = torch.broadcast_shapes(self.mask.shape, x.shape) == x.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise InputError(f"mask {tuple(self.mask.shape)} does not fit inputs {tuple(x.shape)}")

    def _too_large(self, eps: float, largest: float) -> str:
        whole = f"the whole {'image' if self.domain.name == 'image' else 'input'}, {largest:.4g}"
        levels = self.domain.unit_box and self.norm in ("linf", "l2", "l1") and 1 <= eps <= 255 * largest
        return f"eps {eps:g} is larger than {whole} in {self.norm}{f'; {eps:g}/255?' if levels else ''}"

    def in_domain(self, domain: Domain) -> Self:
        """Return the threat for inputs of `domain`: it stays in the box and never changes the fixed columns."""
        return self if domain == self.domain else replace(self, domain=domain)

    def take(self, index: Tensor) -> Self:
        """Return the threat for the samples at `index`, int64 `[M]`."""
        eps, mask = self.eps, self.mask
        if isinstance(eps, Tensor) and eps.dim():
            eps = eps[index]
        if mask is not None and mask.dim() == self.domain.ndim and len(mask) > 1:
            mask = mask[index]
        return replace(self, eps=eps, mask=mask)

    def start(self, x: Tensor) -> Tensor:
        """Return the `z` that stands for `x` unchanged."""
        return x.clone()

    def random_start(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw a random point of the ball, shaped like `x`; it is uniform except for the projection onto the box."""
        mask = self.allowed(x)
        allowed = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
        return self.project(x, x + self._random(x, allowed, generator))

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the input that `z` stands for."""
        return z

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the allowed point nearest to `z`, shaped like `z`."""
        return x + self._project(x, self.restrict(z - x, x))

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `z -> project(x, z)` for an attack that projects many times around the same inputs."""
        return partial(self.project, x)

    def steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Return the direction of length one in this norm with the largest inner product with `g`, shaped like `g`."""
        return self._steepest(self.restrict(g, x), x, z)

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Return how far `x_adv` is from `x`, `[B]`, in the units of eps."""
        return norms(x_adv - x, float(self.norm[1:])).flatten()

    def allowed(self, x: Tensor) -> Tensor | None:
        """Return where `x` may change, 0 or 1 and broadcastable to it; None is everywhere."""
        mutable = None if self.domain is IMAGES else self.domain.mutable(x)
        if mutable is None or self.mask is None:
            return self.mask if mutable is None else mutable
        return self.mask * mutable

    def room(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far every entry of `x` can go down (at most 0) and up (at least 0) inside the box."""
        low, high = self.bounds(x)
        return low - x, high - x

    def bounds(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return the smallest and the largest value of every entry; both equal `x` where `x` may not change."""
        low, high = (0.0, 1.0) if self.domain.unit_box else self.domain.box(x)
        mask = self.allowed(x)
        if mask is None:
            return low, high
        return torch.where(mask.bool(), low, x), torch.where(mask.bool(), high, x)

    def clip(self, x: Tensor, z: Tensor) -> Tensor:
        """Return `z` clipped to the box but not to the ball, and equal to `x` where `x` may not change."""
        low, high = self.bounds(x)
        return z.clamp(low, high)  # type: ignore[arg-type]

    def restrict(self, g: Tensor, x: Tensor) -> Tensor:
        """Return `g` with zeros where `x` may not change."""
        mask = self.allowed(x)
        return g if mask is None else g * mask

    def _radius(self, x: Tensor) -> Tensor:
        return per_sample(torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1), x)

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        raise NotImplementedError

    def _project(self, x: Tensor, shift: Tensor) -> Tensor:
        raise NotImplementedError

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError
