"""Compute exactly which rows or columns of an activation a change of the image can reach, one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The window of an operation on one axis: output `o` reads the inputs `o * stride - padding + dilation * j`.

    Here `j` runs from 0 to `kernel_size - 1`.
    """

    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def needed(self, size: int) -> int:
        """Return the number of places from the first to the last that `size` neighbouring outputs read."""
        return (size - 1) * self.stride + self.dilation * (self.kernel_size - 1) + 1


class Intervals:
    """The places `low <= i < high` of an axis that may differ from the known image, for each of `S` samples.

    Each interval lies in a window `start <= i < start + size`. All windows lie inside the axis and have the same size,
    so that the samples form one tensor. For a sample without a difference, `low` is the length of the axis and `high`
    is 0.

    Args:
        low: the first place that may differ, int64 `[S]`; may lie outside the axis.
        high: one past the last place that may differ, int64 `[S]`; may lie outside the axis.
        length: number of places of the axis.
    """

    def __init__(self, low: Tensor, high: Tensor, length: int) -> None:
        low, high = low.clamp(min=0), high.clamp(max=length)
        nothing = low >= high
        self.low, self.high = low.masked_fill(nothing, length), high.masked_fill(nothing, 0)
        self.length = length
        self.size = max(int((high - low).max()), 1)
        self.start = self.low.clamp(max=length - self.size)

    def _of(self, low: Tensor, high: Tensor, length: int) -> Intervals:
        """Return intervals from `low` to `high`, empty for the samples whose interval is empty here."""
        nothing = self.low >= self.high
        return Intervals(low.masked_fill(nothing, length), high.masked_fill(nothing, 0), length)

    def through(self, window: Window, length: int) -> Intervals:
        """Return the intervals after an operation whose output has `length` places on this axis."""
        first = self.low + window.padding - window.dilation * (window.kernel_size - 1)
        last = self.high - 1 + window.padding
        low = -(-first).div(window.stride, rounding_mode="floor")
        return self._of(low, last.div(window.stride, rounding_mode="floor") + 1, length)

    def moved(self, by: int, length: int) -> Intervals:
        """Return the intervals on an axis of `length` that has `by` more places at its beginning."""
        intervals = self._of(self.low + by, self.high + by, length)
        intervals.size, intervals.start = self.size, self.start + by  # a longer axis must not move the windows
        return intervals

    def union(self, other: Intervals) -> Intervals:
        """Return the smallest intervals that contain both."""
        return Intervals(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high), self.length)

    def same(self, other: Intervals) -> bool:
        """Return whether both have the same windows."""
        return self is other or (self.size == other.size and torch.equal(self.start, other.start))
