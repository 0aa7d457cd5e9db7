"""End runs early whose loss has stopped falling, for every sample separately."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The share by which the lowest loss of a run must fall between two checks, or else the run ends (the value of the
#: authors of Carlini and Wagner's and of EAD's code).
FALL = 1e-4
#: The fewest steps between two checks. With momentum, the loss of single steps can rise for a while.
WINDOW = 10


class EarlyAbort:
    """Compare the lowest loss of each run with that of a tenth of the steps before.

    Args:
        like: a tensor with one number per run, `[M]`, for their number, dtype and device.
        steps: largest number of steps of a run; checks are a tenth of it apart, or `WINDOW` steps if those are more.

    Attributes:
        lowest: the lowest loss of each run so far, `[M]`.
        before: the lowest loss at the last check, `[M]`.
    """

    def __init__(self, like: Tensor, steps: int) -> None:
        self.window = max(math.ceil(steps / 10), WINDOW)
        self.lowest = self.before = torch.full_like(like, float("inf"))

    def stalled(self, loss: Tensor, step: Tensor) -> Tensor:
        """Return which runs end because their lowest loss has not fallen by the share `FALL` since the last check.

        Args:
            loss: the loss of each run, `[M]`.
            step: the number of its step, counted from 0, int64 `[M]`. Every step must be given.
        """
        self.lowest = self.lowest.minimum(loss)
        check = step % self.window == 0
        stalls = check & ~(self.before - self.lowest >= FALL * self.before.abs())
        self.before = torch.where(check, self.lowest, self.before)
        return stalls

    def restart(self, rows: Tensor) -> None:
        """Forget the losses of the runs at `rows`, which begin again."""
        self.lowest, self.before = (t.index_fill(0, rows, float("inf")) for t in (self.lowest, self.before))

    def take(self, rows: Tensor) -> None:
        """Keep only the runs at `rows`."""
        self.lowest, self.before = self.lowest[rows], self.before[rows]
