"""The slope of a function between two points, which LRP and DeepLIFT pass back in place of its derivative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def secant(
    f: Callable[[Tensor], Tensor],
    z: Tensor,
    start: Tensor,
    value: Tensor,
    slope: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return `(f(z) - f(start)) / (z - start)`, and the derivative between both where they are almost equal.

    Args:
        f: a function of single entries.
        z: `[...]`; the result is differentiable in it if gradients are enabled.
        start: broadcasts against `z`.
        value: `f(z)`.
        slope: the derivative of a piecewise linear `f`, whose differences are exact, so that it counts only where `z`
            equals `start`. None computes the derivative, also where the difference would be rounded.
    """
    change = z - start
    if slope is not None:
        near = change == 0
        derivative = slope(z)
    else:
        near = change.abs() <= torch.finfo(z.dtype).eps ** 0.5 * (1 + start.abs())
        derivative = _derivative(f, torch.where(near, start + change / 2, start))
    return torch.where(near, derivative, (value - f(start)) / torch.where(near, torch.ones_like(change), change))


def _derivative(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the derivative of a function of single entries; it has a graph if gradients are enabled."""
    attached = torch.is_grad_enabled()
    z = z if attached and z.requires_grad else z.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(f(z).sum(), z, create_graph=attached)
    return slope
