"""Search by bisection for the weight `c` of an objective against a distance, for every sample separately."""

from __future__ import annotations

import torch
from torch import Tensor


class BinarySearch:
    """Bisect between the largest weight that failed and the smallest that succeeded; until a success, multiply by 10.

    Args:
        x: inputs `[B, ...]`, for their number, dtype and device.
        c: the first weight.

    Attributes:
        c: the weight to try next, `[B]`.
    """

    def __init__(self, x: Tensor, c: float) -> None:
        self.c = x.new_full((len(x),), c)
        self.low, self.high = torch.zeros_like(self.c), torch.full_like(self.c, float("inf"))

    def update(self, reached: Tensor, index: Tensor) -> None:
        """Choose the next weights of the samples at `index` `[M]`; `reached` says whether the last weight succeeded."""
        c = self.c[index]
        self.low[index] = low = torch.where(reached, self.low[index], c)
        self.high[index] = high = torch.where(reached, c, self.high[index])
        self.c[index] = torch.where(high.isinf(), 10 * c, (low + high) / 2)
