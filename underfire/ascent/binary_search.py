"""The binary search over the weight `c` of an objective against a distance, every sample by itself."""

from __future__ import annotations

import torch
from torch import Tensor


class BinarySearch:
    """Weights `c`: halved between failure and success, and ten times as large until there is a success.

    Args:
        x: images `[B, C, H, W]`, for their number, precision and device.
        c: the first weight.

    Attributes:
        c: the weight to try next, `[B]`.
    """

    def __init__(self, x: Tensor, c: float) -> None:
        self.c = x.new_full((len(x),), c)
        self.low, self.high = torch.zeros_like(self.c), torch.full_like(self.c, float("inf"))

    def update(self, reached: Tensor, index: Tensor) -> None:
        """Whether the weights of the samples at `index` `[M]` were enough, bool `[M]`."""
        c = self.c[index]
        self.low[index] = low = torch.where(reached, self.low[index], c)
        self.high[index] = high = torch.where(reached, c, self.high[index])
        self.c[index] = torch.where(high.isinf(), 10 * c, (low + high) / 2)
