"""The RevealCancel rule of DeepLIFT: positive and negative contributions to an activation are treated apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    """The positive and the negative contributions to the outputs of a weighted layer.

    Attributes:
        parts: both sums, `Δz⁺` and `Δz⁻`, shaped like the outputs.
    """

    parts: tuple[Tensor, Tensor]

    def multipliers(self, f: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
        """Return `Δy⁺ / Δz⁺` and `Δy⁻ / Δz⁻` of an activation f (Shrikumar et al., 2017, section 3.5.3).

        `Δy⁺` is the mean of the change by `Δz⁺` before and after that by `Δz⁻`, and `Δy⁻` accordingly.
        """
        up, down = self.parts
        at_start, at_up, at_down, at_both = f(start), f(start + up), f(start + down), f(start + up + down)
        by_up = (at_up - at_start + at_both - at_down) / 2
        by_down = (at_down - at_start + at_both - at_up) / 2
        return _over(by_up, up), _over(by_down, down)


class SignedSums:
    """Remember the weighted layers whose outputs an activation may read."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Tensor, Callable[[], Parts]]] = {}

    def note(self, func: Callable[..., Any], args: Any, kwargs: Any, z: Tensor, start: Tensor) -> None:
        """Remember a call of a weighted layer with outputs `z`, whose inputs are `start` for the reference."""

        def parts() -> Parts:
            a, weight = args[:2]
            up, down = _signed(a - start)
            rest = {key: value for key, value in kwargs.items() if key != "bias"}

            def apply(a: Tensor, weight: Tensor) -> Tensor:
                made: Tensor = func(a, weight, None, *args[3:], **rest)
                return made

            grows, falls = weight.clamp_min(0), weight.clamp_max(0)
            return Parts((apply(up, grows) + apply(down, falls), apply(up, falls) + apply(down, grows)))

        self._made[id(z)] = z, parts

    def of(self, z: Tensor) -> Parts | None:
        """Return the contributions to `z`, or None if it is not what a weighted layer returned."""
        made = self._made.get(id(z))
        return made[1]() if made is not None and made[0] is z else None

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Note that `after` has the values of `before`."""
        made = self._made.get(id(before))
        if made is not None and made[0] is before:
            self._made[id(after)] = after, made[1]
        else:
            self._made.pop(id(after), None)


def _signed(change: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positive and the negative part; at zero, each has half of the derivative."""
    return (change + change.abs()) / 2, (change - change.abs()) / 2


def _over(change: Tensor, by: Tensor) -> Tensor:
    """Return a quotient, zero where the divisor is zero."""
    nonzero = by != 0
    return change / torch.where(nonzero, by, torch.ones_like(by)) * nonzero
