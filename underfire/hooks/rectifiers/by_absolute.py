"""Recognise the rectifiers that are written with an absolute value: `(z + |z|) / 2`, or leaky, `p * z + q * |z|`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from underfire.hooks.rectifiers.calls import Arguments, Rectifier, share_of

#: Returns the tensor whose absolute value, times a positive number, a value is; or None.
Source = Callable[[Any], Tensor | None]

#: Functions that return absolute values, and functions after which a number times an absolute value may be left.
ABSOLUTE = {"abs", "absolute"}
SCALED = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
SCALED |= {"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__", "clone"}


def _signed_share(value: Tensor, z: Tensor) -> float | None:
    """Return `s` if `value` is `s z` everywhere, or None."""
    if value is z:
        return 1.0
    share, opposite = share_of(value, z), share_of(-value, z)
    return share if opposite is None else -opposite


def _sum(one_sign: int, other_sign: int) -> Callable[[Arguments, Source], Rectifier | None]:
    """Return a function that reads the sum or difference of a share of `z` and a share of `|z|`."""

    def read(a: Arguments, source: Source) -> Rectifier | None:
        one, other = a.get(0, "input", "self"), a.get(1, "other")
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)) or a.kwargs.get("alpha", 1) != 1:
            return None
        pairs = ((one, other, one_sign, other_sign), (other, one, other_sign, one_sign))
        for linear, absolute, sign, absolute_sign in pairs:
            z = source(absolute)
            if z is None:
                continue
            p, q = _signed_share(linear, z), share_of(absolute, z.detach().abs())
            if p is None or q is None:
                continue
            # p z ± q |z| = ± ((|p| + q) w above zero and (|p| - q) w below), for w = z or -z
            p *= sign * absolute_sign
            above, below = abs(p) + q, abs(p) - q
            if below > -1e-6 * above:
                slope = below / above if below > 1e-6 * above else 0.0
                return Rectifier(z if p > 0 else -z, slope, scale=absolute_sign * above)
        return None

    return read


BY_ABSOLUTE: dict[str, Callable[[Arguments, Source], Rectifier | None]] = {
    "add": _sum(1, 1),
    "__add__": _sum(1, 1),
    "__radd__": _sum(1, 1),
    "__iadd__": _sum(1, 1),
    "sub": _sum(1, -1),
    "subtract": _sum(1, -1),
    "__sub__": _sum(1, -1),
    "__isub__": _sum(1, -1),
    "rsub": _sum(-1, 1),
    "__rsub__": _sum(-1, 1),
}
