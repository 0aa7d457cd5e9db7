"""Find the bounding boxes of masks."""

from __future__ import annotations

import torch
from torch import Tensor


def boxes(mask: Tensor) -> Tensor:
    """Return the smallest box around each mask `[B, 1, H, W]` (bool); the box of an empty mask is all zeros.

    Boxes are int64 `[B, 4]`, in pixels (left, top, right, bottom), right and bottom exclusive.
    """
    edges = []
    for covered in (mask.any(2).flatten(1), mask.any(3).flatten(1)):  # columns, rows
        length = covered.shape[1]
        first, last = covered.int().argmax(1), length - covered.flip(1).int().argmax(1)
        edges.append(torch.stack([first, torch.where(covered.any(1), last, 0)], 1))
    return torch.stack([edges[0][:, 0], edges[1][:, 0], edges[0][:, 1], edges[1][:, 1]], 1)
