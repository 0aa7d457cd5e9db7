"""Checks and conversions that every measure applies to its arguments first."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.errors import InputError


def wide(t: Tensor) -> Tensor:
    """Return the tensor as float32, which is precise enough for sums over many pixels; float64 stays float64."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def require_same_shape(a: Tensor, b: Tensor) -> None:
    """Raise InputError unless the two batches have the same shape."""
    if a.shape != b.shape:
        raise InputError(f"the two batches must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def as_map(m: Tensor) -> Tensor:
    """Return the maps as float32 or float64 (see `wide`).

    Raises:
        InputError: the shape is not `[B, 1, h, w]`, or a map has no pixels.
    """
    if m.dim() != 4 or m.shape[1] != 1 or 0 in m.shape[2:]:
        raise InputError(f"a map must be [B, 1, h, w], got {tuple(m.shape)}")
    return wide(m)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return `part / whole`, and nan where `whole` is not positive; gradients stay finite."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1), torch.nan)


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise InputError unless `x` is `[B, C, H, W]` and `y` int64 `[B]`."""
    if x.dim() != 4:
        raise InputError(f"images must be [B, C, H, W], got {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise InputError(f"classes must be int64 [{len(x)}], one for each image, got {y.dtype} {tuple(y.shape)}")
