"""Affine maps of images: rotation, shear, shift and zoom, each image with its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_maps(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the matrices `[[a, b], [c, d]]`, `[B, 2, 2]`, of numbers `[B]`."""
    return torch.stack([a, b, c, d], 1).unflatten(1, (2, 2))


def resample(
    x: Tensor, matrix: Tensor, shift: Tensor | None = None, *, mode: str = "bilinear", fill: float = 0.0
) -> Tensor:
    """Return images whose pixel at `u` is that of `x` at `matrix · u + shift`, in pixels from the middle of the image.

    Args:
        x: images `[B, C, H, W]`.
        matrix: one for each image, on vectors (row, column), `[B, 2, 2]`.
        shift: rows and columns, `[B, 2]`; None is 0.
        mode: `"nearest"`, `"bilinear"` or `"bicubic"`.
        fill: value of the pixels outside of the image.
    """
    height, width = x.shape[2:]
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) - (n - 1) / 2 for n in (height, width))
    points = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(1, -1, 2) @ matrix.transpose(1, 2)
    if shift is not None:
        points = points + shift[:, None]
    half = x.new_tensor([height / 2, width / 2])
    grid = (points / half).flip(2).unflatten(1, (height, width))
    return fill + F.grid_sample(x - fill, grid, mode=mode, padding_mode="zeros", align_corners=False)
