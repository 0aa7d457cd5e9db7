"""The loss of an attack, with what an estimator needs that takes steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AttackLoss:
    """A loss `z -> [B]` that an attack makes large; calling it evaluates it.

    Attributes:
        value: the loss.
        members: the loss of every member of an ensemble alone; of any other model, the loss.
        advance: `(z, direction) -> z`, one step of the attack's own length along a direction, projected.
        compared: whether the attack compares the value at `z` with others; if not, an estimator need not evaluate it.
    """

    value: Loss
    members: tuple[Loss, ...]
    advance: Callable[[Tensor, Tensor], Tensor]
    compared: bool = True

    def __call__(self, z: Tensor) -> Tensor:
        """Return the loss of every row, `[B]`."""
        return self.value(z)
