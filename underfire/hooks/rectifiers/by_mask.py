"""Recognise the rectifiers that are written with a comparison: `z * (z > 0)`, `where(z > 0, z, 0)`, `masked_fill`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from underfire.hooks.rectifiers.calls import Arguments, Rectifier, fits, is_zero, share_of

_IsMask = Callable[[Any], bool]


def _signs(mask: Tensor, z: Tensor) -> bool | None:
    """Return True if a mask is one exactly where z is positive, False if exactly where z is negative, else None."""
    if mask.shape != z.shape:
        return None
    on, z = mask.detach() != 0, z.detach()
    if bool(((on == (z > 0)) | (z == 0)).all()):
        return True
    return False if bool(((on == (z < 0)) | (z == 0)).all()) else None


def _product(a: Arguments, is_mask: _IsMask) -> Rectifier | None:
    one, other = a.get(0, "input", "self"), a.get(1, "other")
    z, mask = (one, other) if is_mask(other) else (other, one)
    if not (isinstance(z, Tensor) and is_mask(mask) and fits(mask, z)) or _signs(mask, z) is not True:
        return None
    return Rectifier(z)


def _choice(a: Arguments, is_mask: _IsMask) -> Rectifier | None:
    """Return the rectifier that `where(z > 0, z, s z)`, or `where(z < 0, s z, z)`, computes."""
    mask, yes, no = a.get(0, "condition"), a.get(1, "input", "self"), a.get(2, "other")
    if isinstance(mask, Tensor) and isinstance(yes, Tensor) and not is_mask(mask) and is_mask(yes):
        mask, yes = yes, mask  # the method `z.where(mask, other)`
    if not is_mask(mask):
        return None
    for z, below, wanted in ((yes, no, True), (no, yes, False)):
        if isinstance(z, Tensor) and z.is_floating_point() and _signs(mask, z) is wanted:
            share = 0.0 if is_zero(below, z) else share_of(below, z) if isinstance(below, Tensor) else None
            if share is not None:
                return Rectifier(z, share)
    return None


def _filled(a: Arguments, is_mask: _IsMask) -> Rectifier | None:
    z, mask, value = a.z, a.get(1, "mask"), a.get(2, "value")
    fits = is_mask(mask) and _signs(mask, z) is False and is_zero(value, z)
    return Rectifier(z) if fits else None


BY_MASK: dict[str, Callable[[Arguments, _IsMask], Rectifier | None]] = {
    "mul": _product,
    "multiply": _product,
    "__mul__": _product,
    "__rmul__": _product,
    "__imul__": _product,
    "where": _choice,
    "masked_fill": _filled,
    "__setitem__": _filled,
}
