"""The slope of a function between two points, which LRP and DeepLIFT pass back in place of its derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def secant(
    f: Callable[[Tensor], Tensor], z: Tensor, start: Tensor, value: Tensor, *, tolerance: float | None = None
) -> Tensor:
    """Return `(f(z) - f(start)) / (z - start)`, and the derivative between both where they are almost equal.

    Args:
        f: a function of single entries.
        z: `[...]`; the result is differentiable in it if gradients are enabled.
        start: broadcasts against `z`.
        value: `f(z)`.
        tolerance: the share of `start` up to which both are almost equal; None suits functions whose differences are
            rounded.
    """
    attached, change = torch.is_grad_enabled(), z - start
    share = torch.finfo(z.dtype).eps ** 0.5 if tolerance is None else tolerance
    near = change.abs() <= share * (1 + start.abs())
    middle = torch.where(near, start + change / 2, start)
    with torch.enable_grad():
        middle = middle if attached and middle.requires_grad else middle.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(middle).sum(), middle, create_graph=attached)
    rise = value - f(start)
    return torch.where(near, slope, rise / torch.where(near, torch.ones_like(change), change))
