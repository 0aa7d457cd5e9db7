"""A ramp of eps: a training begins with clean images, and its inner attack grows to its full size."""

from __future__ import annotations

from underfire.errors import InputError

Ramp = tuple[float, float]
"""Two shares of the training: eps is 0 up to the first one, and rises linearly up to the second one."""


def check_ramp(ramp: Ramp) -> None:
    """Raise InputError unless a ramp is two shares of the training, the smaller one first."""
    if not 0 <= ramp[0] <= ramp[1] <= 1:
        raise InputError(f"ramp must be two shares of the training, the smaller one first, got {tuple(ramp)}")


def ramped(progress: float, ramp: Ramp) -> float:
    """Return the share of eps at this share of the training.

    >>> ramped(0.1, (0.2, 0.4)), ramped(0.3, (0.2, 0.4)), ramped(0.5, (0.2, 0.4)), ramped(0.0, (0.0, 0.0))
    (0.0, 0.5, 1.0, 1.0)
    """
    first, last = ramp
    if progress >= last:
        return 1.0
    return 0.0 if progress <= first else round((progress - first) / (last - first), 12)
