"""Gaussian and median blur of images, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS = 32  # rows of medians that are computed at once; the windows of a whole image take `side²` times its memory


def blur_matrix(size: int, sigma: float, radius: int | None = None, like: Tensor | None = None) -> Tensor:
    """Return the Gaussian blur of a line of `size` pixels as a matrix `[size, size]`; its ends are mirrored.

    Its rows sum to one. An image is blurred by one matrix product from the left and one from the right, and so is its
    gradient in the backward pass.

    Args:
        size: number of pixels.
        sigma: standard deviation in pixels.
        radius: reach of the kernel in pixels; None is three standard deviations.
        like: a tensor that gives dtype and device.
    """
    # mirroring adds at most `size - 1` pixels at each end
    reach = min(math.ceil(3 * sigma) if radius is None else radius, size - 1)
    dtype, device = (like.dtype, like.device) if like is not None else (None, None)
    offsets = torch.arange(-reach, reach + 1, dtype=dtype, device=device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    lines = F.pad(torch.eye(size, dtype=kernel.dtype, device=device)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(lines, (kernel / kernel.sum())[None, None]).squeeze(1).T


def gaussian_blur(x: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Blur images `[B, C, H, W]` by a Gaussian of `sigma` pixels, cut off after `radius`; borders are mirrored."""
    down, across = (blur_matrix(size, sigma, radius, like=x) for size in x.shape[2:])
    return down @ x @ across.T


def gaussian_blur_per_sample(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image of `[B, C, H, W]` by a Gaussian of its own `sigma` `[B]`, in pixels; the border is repeated."""
    reach = max(1, math.ceil(3 * float(sigma.max()))) if len(sigma) else 1
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    # A Gaussian much narrower than a pixel is exactly one pixel.
    line = torch.exp(-(offsets**2) / (2 * sigma.clamp_min(1e-3)[:, None] ** 2))
    line = (line / line.sum(1, keepdim=True)).repeat_interleave(x.shape[1], dim=0)[:, None]
    # one group for each channel of each image
    planes = x.reshape(1, -1, *x.shape[2:])
    planes = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    planes = F.conv2d(planes, line[:, :, :, None], groups=planes.shape[1])
    return F.conv2d(planes, line[:, :, None], groups=planes.shape[1]).reshape(x.shape)


def median_blur(x: Tensor, side: int) -> Tensor:
    """Return the median of the square of `side` pixels around every pixel; the border is repeated.

    An even square reaches one pixel further up and left than down and right, and its median is the larger of the two
    values in the middle, as in `scipy.ndimage.median_filter`.
    """
    before, middle = side // 2, side * side // 2
    after = side - 1 - before
    padded = F.pad(x, (before, after, before, after), mode="replicate")
    medians = []
    for top in range(0, x.shape[2], _ROWS):
        rows = padded[:, :, top : min(top + _ROWS, x.shape[2]) + side - 1]
        windows = rows.unfold(2, side, 1).unfold(3, side, 1)
        medians.append(windows.flatten(4).kthvalue(middle + 1, dim=-1).values)
    return torch.cat(medians, 2)
