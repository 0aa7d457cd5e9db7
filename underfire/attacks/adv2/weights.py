"""The weight of the map loss over the steps: a constant, a line, or a list of phases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from underfire.errors import InputError

Weights = float | tuple[float, float] | tuple[tuple[float, float], ...]
"""One number, a pair (first, last), or phases (length, weight); lengths are relative to each other."""


def weight_schedule(weight: Weights) -> Callable[[float], float]:
    """Return the weight as a function of the share of the steps that are done, in [0, 1].

    >>> [weight_schedule(((300, 1), (100, 5)))(share) for share in (0, 0.74, 0.75, 1)]
    [1.0, 1.0, 5.0, 5.0]

    Raises:
        InputError: the weight has none of the three forms, or a number is negative.
    """
    fault = f"weight must be a number, a pair (first, last) or phases ((length, weight), ...), got {weight}"
    given: Any = (weight, weight) if isinstance(weight, (int, float)) else weight
    try:
        if len(given) == 2 and all(isinstance(number, (int, float)) for number in given):
            first, last = _numbers(given)
            return lambda share: first + (last - first) * share
        phases = [_numbers(phase) for phase in given]
    except (TypeError, ValueError):
        raise InputError(fault) from None
    total = sum(length for length, _ in phases)
    if not total > 0:
        raise InputError(fault)
    ends = [end / total for end in accumulate(length for length, _ in phases)]

    def schedule(share: float) -> float:
        reached = (value for end, (_, value) in zip(ends, phases, strict=True) if share < end)
        return next(reached, phases[-1][1])

    return schedule


def _numbers(pair: Any) -> tuple[float, float]:
    """Return a pair as two numbers that are finite and not negative; raise ValueError if they are not."""
    first, last = (float(number) for number in pair)
    if not (0 <= first < float("inf") and 0 <= last < float("inf")):
        raise ValueError(pair)
    return first, last
