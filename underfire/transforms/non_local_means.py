"""Denoise images by non-local means, in torch, with the values of OpenCV and a gradient.

Source: Buades, Coll and Morel, A Non-Local Algorithm for Image Denoising, CVPR 2005. The fixed-point arithmetic is that
of OpenCV's `fastNlMeansDenoising` and `fastNlMeansDenoisingColored`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from underfire.errors import InputError, Unsupported
from underfire.transforms.lab import from_lab, to_lab
from underfire.transforms.rounding import replaced, rounded

_SMALLEST = 0.001  # weights below this share of the largest count as zero
_LARGEST_SUM = 2**31 - 1  # sums of weighted levels must fit into 32 bits, which sets the unit of the weights


def non_local_means(x: Tensor, search: int, template: int, strength: float) -> Tensor:
    """Replace every pixel by a mean of the pixels around it, weighted by how similar their neighbourhoods are.

    The image is rounded to 8 bits. An image of three channels is smoothed in Lab: the lightness alone, and the two
    channels of colour together. The gradient is that of the same computation without rounding. It is computed again,
    row of the search window by row, in the backward pass, so that it takes `search` times the memory of an image.

    Args:
        x: images `[B, 1, H, W]`, or `[B, 3, H, W]` in RGB, in `[0, 1]`.
        search: side of the window of pixels that are averaged, odd.
        template: side of the neighbourhoods that are compared, odd.
        strength: h, the difference of two neighbourhoods, in levels of 255, at which the weight has fallen to 1/e.

    Raises:
        InputError: a window is even, the strength is not positive, or the image is smaller than the windows.
        Unsupported: the images do not have one or three channels.
    """
    if search < 1 or template < 1 or search % 2 == 0 or template % 2 == 0 or not strength > 0:
        got = f"search {search}, template {template}, strength {strength}"
        raise InputError(f"non-local means needs odd windows and a positive strength, got {got}")
    border = search // 2 + template // 2
    if min(x.shape[2:]) <= border:
        raise InputError(
            f"non-local means with windows of {search} and {template} pixels needs images of at least {border + 1} "
            f"pixels a side, got {x.shape[2]} x {x.shape[3]}"
        )
    if x.shape[1] not in (1, 3):
        raise Unsupported(f"non-local means takes images of one or three channels, got {x.shape[1]}")
    levels = rounded(255 * x.to(torch.float64))  # sums of weighted levels need more than 24 bits
    if x.shape[1] == 1:
        smooth = _smoothed(levels, search, template, strength)
    else:
        lab = rounded(to_lab(levels / 255))
        parts = [_smoothed(part, search, template, strength) for part in (lab[:, :1], lab[:, 1:])]
        exact = 255 * from_lab(torch.cat(parts, 1))
        smooth = replaced(exact, exact.floor())  # OpenCV cuts fractions off here
    return (smooth / 255).to(x.dtype)


def _smoothed(levels: Tensor, search: int, template: int, strength: float) -> Tensor:
    """Return planes of whole levels `[B, C, H, W]`, whose channels are compared together, smoothed."""
    reach, half = search // 2, template // 2
    extended = F.pad(levels, [reach + half] * 4, mode="reflect")

    def row(extended: Tensor, down: int) -> tuple[Tensor, ...]:
        """Return the weighted sum of the pixels of one row of the search window, and the sum of their weights."""
        height, width = levels.shape[2] + 2 * half, levels.shape[3] + 2 * half
        here = extended[:, :, reach : reach + height, reach : reach + width]
        total, weights = torch.zeros_like(levels), torch.zeros_like(levels[:, :1])
        for right in range(search):
            there = extended[:, :, down : down + height, right : right + width]
            weight = _weights(here - there, search, template, strength)
            pixels = there[:, :, half : half + levels.shape[2], half : half + levels.shape[3]]
            total, weights = total + weight * pixels, weights + weight
        return total, weights

    sums, weights = torch.zeros_like(levels), torch.zeros_like(levels[:, :1])
    for down in range(search):
        part, weight = _Recomputed.apply(row, extended, down)
        sums, weights = sums + part, weights + weight
    # the quotient of whole numbers, rounded with halves up
    return replaced(sums / weights, ((sums + (weights / 2).floor()) / weights).floor())


def _weights(difference: Tensor, search: int, template: int, strength: float) -> Tensor:
    """Return the weights of neighbourhoods as whole numbers, `[B, 1, H, W]`, from the differences of their pixels.

    The mean squared difference is computed with steps of `2^shift` in its sum, as in OpenCV; the gradient is that of
    the exact mean.
    """
    unit, size, channels = _LARGEST_SUM // (search * search * 255), template * template, difference.shape[1]
    shift = 2 ** math.ceil(math.log2(size))
    squares = F.avg_pool2d(difference.square().sum(1, keepdim=True), template, stride=1, divisor_override=1)
    scale = strength**2 * channels
    whole = (unit * torch.exp((squares / shift).floor() * (-shift / size / scale))).round()
    kept = whole >= _SMALLEST * unit
    return replaced(unit * torch.exp(-squares / size / scale), whole) * kept


class _Recomputed(torch.autograd.Function):
    """Tensors of a function that is computed again in the backward pass, so that nothing in it is kept until then."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], z: Tensor, place: int) -> tuple[Tensor, ...]:
        """Return `function(z, place)` without a graph."""
        ctx.function, ctx.place = function, place
        ctx.save_for_backward(z)
        return function(z, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, None]:
        """Return the gradient with respect to `z`."""
        z = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            made = ctx.function(z, ctx.place)
        return None, torch.autograd.grad(made, z, slopes)[0], None
