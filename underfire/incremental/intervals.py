"""Which rows or columns of an activation a change of the image can have reached; one axis at a time, exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """How an operation reads an axis: output `o` reads `o * stride - before + dilation * j` for `0 <= j < reach`."""

    reach: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1

    def needed(self, size: int) -> int:
        """From the first to the last place that `size` outputs in a row read."""
        return (size - 1) * self.stride + self.dilation * (self.reach - 1) + 1


class Intervals:
    """For each of `S` samples the places `low <= i < high` of an axis that may differ, and a window around them.

    The windows `start <= i < start + size` have one size, so that the samples make one tensor; they lie inside the axis
    and hold everything that may differ. Where nothing does, `low` is the length of the axis and `high` 0.

    Args:
        low: first place that may differ, int64 `[S]`; may lie outside the axis.
        high: one past the last.
        length: of the axis.
    """

    def __init__(self, low: Tensor, high: Tensor, length: int) -> None:
        low, high = low.clamp(min=0), high.clamp(max=length)
        nothing = low >= high
        self.low, self.high = low.masked_fill(nothing, length), high.masked_fill(nothing, 0)
        self.length = length
        self.size = max(int((high - low).max()), 1)
        self.start = self.low.clamp(max=length - self.size)

    def _of(self, low: Tensor, high: Tensor, length: int) -> Intervals:
        nothing = self.low >= self.high
        return Intervals(low.masked_fill(nothing, length), high.masked_fill(nothing, 0), length)

    def through(self, window: Window, length: int) -> Intervals:
        """Those of what an operation puts out, an axis of `length`."""
        first = self.low + window.before - window.dilation * (window.reach - 1)
        last = self.high - 1 + window.before
        low = -(-first).div(window.stride, rounding_mode="floor")
        return self._of(low, last.div(window.stride, rounding_mode="floor") + 1, length)

    def moved(self, by: int, length: int) -> Intervals:
        """The same places of an axis of `length` that begins `by` places earlier."""
        spans = self._of(self.low + by, self.high + by, length)
        spans.size, spans.start = self.size, self.start + by  # a longer axis must not move the windows
        return spans

    def union(self, other: Intervals) -> Intervals:
        """Those that hold both."""
        return Intervals(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high), self.length)

    def same(self, other: Intervals) -> bool:
        """Whether the windows are the same."""
        return self is other or (self.size == other.size and torch.equal(self.start, other.start))
