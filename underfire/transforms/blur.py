"""Images without their detail, which stand for "nothing there": Gaussian and median blur, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS = 32  # of the median's windows at once: all of them would take the square of its side times the image


def blur_matrix(size: int, sigma: float, radius: int | None = None, like: Tensor | None = None) -> Tensor:
    """The Gaussian blur of a line of `size` pixels as a matrix, `[size, size]`; what lies outside is mirrored.

    Rows sum to one. A blur is one product from either side, and so is its way back.

    Args:
        size: how many pixels.
        sigma: standard deviation in pixels.
        radius: how far the kernel reaches, in pixels; None is three standard deviations.
        like: a tensor that gives type and device.
    """
    reach = min(math.ceil(3 * sigma) if radius is None else radius, size - 1)  # a mirror shows no more than the line
    dtype, device = (like.dtype, like.device) if like is not None else (None, None)
    offsets = torch.arange(-reach, reach + 1, dtype=dtype, device=device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    lines = F.pad(torch.eye(size, dtype=kernel.dtype, device=device)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(lines, (kernel / kernel.sum())[None, None]).squeeze(1).T


def gaussian_blur(x: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Images `[B, C, H, W]` through a Gaussian blur of `sigma` pixels, cut off after `radius` (see `blur_matrix`)."""
    down, across = (blur_matrix(size, sigma, radius, like=x) for size in x.shape[2:])
    return down @ x @ across.T


def median_blur(x: Tensor, side: int) -> Tensor:
    """The median of the square of `side` pixels (odd) around every pixel of every channel; the edge is repeated."""
    reach = side // 2
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    medians = []
    for top in range(0, x.shape[2], _ROWS):
        rows = padded[:, :, top : min(top + _ROWS, x.shape[2]) + 2 * reach]
        windows = rows.unfold(2, side, 1).unfold(3, side, 1)
        medians.append(windows.flatten(4).median(-1).values)
    return torch.cat(medians, 2)
