"""Smoothings: functions applied to a gradient `[B, ...]` before a move uses it, which return one of the same shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.validate import per_sample

Smoothing = Callable[[Tensor], Tensor]


def none(gradient: Tensor) -> Tensor:
    """Return the gradient unchanged."""
    return gradient


def norms(gradient: Tensor, order: float) -> Tensor:
    """Return the norm of every sample, `[B, 1, ...]`, which broadcasts against the gradient."""
    flat = gradient.flatten(1)
    # for the largest entry, torch's own norm takes ten times as long
    found = flat.abs().amax(1) if order == math.inf else torch.linalg.vector_norm(flat, ord=order, dim=1)
    return per_sample(found, gradient)


def normalise(order: float) -> Smoothing:
    """Divide every sample by its norm of this order (1, 2, `inf`); a zero gradient stays zero."""

    def smooth(gradient: Tensor) -> Tensor:
        return unit(gradient, order)

    return smooth


def unit(gradient: Tensor, order: float) -> Tensor:
    """Divide every sample by its norm of this order, however small the norm is; a zero gradient stays zero."""
    tiny = torch.finfo(gradient.dtype).tiny
    if order not in (1, math.inf):  # scale first, because the powers of a small gradient would underflow
        gradient = gradient / norms(gradient, 1).clamp_min(tiny)
    return gradient / norms(gradient, order).clamp_min(tiny)


def sign(gradient: Tensor) -> Tensor:
    """Return the sign of every entry."""
    return gradient.sign()


def translation_kernel(size: int = 15, sigma: float | None = None, kind: str = "gaussian") -> Smoothing:
    """Convolve every channel with a kernel that sums to one: the translation-invariant method (TI).

    The convolved gradient approximates the weighted mean of the gradients of shifted copies of the image; the kernel
    holds the weights of the shifts.

    Args:
        size: side of the kernel in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels; None ends the kernel at three standard deviations, as in
            the paper.
        kind: `"gaussian"`, `"uniform"` or `"linear"`.

    Source: Dong et al., Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks, CVPR
        2019.
    """
    if size < 1 or size % 2 == 0:
        raise InputError(f"a translation kernel needs an odd size >= 1, got {size}")
    if sigma is not None and not sigma > 0:
        raise InputError(f"a translation kernel needs sigma > 0, got {sigma}")
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    if kind == "gaussian":
        sigma = sigma if sigma is not None else max(size // 2, 1) / 3
        line = torch.exp(-(offset**2) / (2 * sigma**2))
    elif kind == "uniform":
        line = torch.ones(size, dtype=torch.float64)
    elif kind == "linear":
        line = 1 - offset.abs() / (size // 2 + 1)
    else:
        raise InputError(f"unknown translation kernel {kind!r}; choices: gaussian, linear, uniform")
    line = line / line.sum()

    def smooth(gradient: Tensor) -> Tensor:
        # All three kernels are separable: a column, then a row, costs 2 size products per pixel instead of size².
        channels = gradient.shape[1]
        column = line.to(gradient).reshape(1, 1, size, 1).expand(channels, 1, size, 1)
        columns = F.conv2d(gradient, column, padding=(size // 2, 0), groups=channels)
        return F.conv2d(columns, column.transpose(2, 3), padding=(0, size // 2), groups=channels)

    return smooth


def chain(*parts: Smoothing) -> Smoothing:
    """Apply several smoothings, from first to last."""

    def smooth(gradient: Tensor) -> Tensor:
        for part in parts:
            gradient = part(gradient)
        return gradient

    return smooth
