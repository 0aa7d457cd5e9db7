"""Recognise the rectifiers that are written as a bound: `z.clamp(min=0)`, `maximum(z, 0)`, `maximum(z, s * z)`."""

from __future__ import annotations

from torch import Tensor

from underfire.hooks.rectifiers.calls import Arguments, Rectifier, is_zero, share_of

# A clamp from 0 to one of these caps keeps an image or a share in its range; it is not a rectifier.
_BOXES = (1, 255)


def _clamp(a: Arguments) -> Rectifier | None:
    low, high = a.get(1, "min"), a.get(2, "max")
    if not is_zero(low, a.z) or isinstance(high, Tensor) or high in _BOXES:
        return None
    return Rectifier(a.z, cap=None if high is None else float(high))


def _maximum(a: Arguments) -> Rectifier | None:
    one, other = a.get(0, "input", "self"), a.get(1, "other", "min")
    if not isinstance(one, Tensor) or isinstance(other, bool) or (isinstance(other, int | float) and other != 0):
        return None
    if is_zero(other, one):
        return Rectifier(one)
    if not isinstance(other, Tensor) or one.dtype != other.dtype:
        return None
    if is_zero(one, other):
        return Rectifier(other)
    slope = share_of(other, one)  # the maximum of z and a share of it is a leaky rectifier
    if slope is not None:
        return Rectifier(one, slope) if slope < 1 else Rectifier(other, 1 / slope)
    return None


def _max(a: Arguments) -> Rectifier | None:
    return _maximum(a) if isinstance(a.get(1, "other"), Tensor) else None  # otherwise it reduces a dimension


BY_BOUND = {"clamp": _clamp, "clip": _clamp, "clamp_min": _maximum, "maximum": _maximum, "fmax": _maximum, "max": _max}
