"""Recognise a rectifier in every form in which a network may compute it: by its name, by a bound, by a comparison.

A rectifier is zero below zero (or a share of its input there) and its input above, up to a cap if it has one. Networks
spell it `relu(z)`, `z.clamp(min=0)`, `maximum(z, 0)`, `threshold(z, 0, 0)`, `where(z > 0, z, 0)`, `z * (z > 0)`,
`z.masked_fill(z < 0, 0)` and more. Where the name does not tell, the values do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Activations that are no rectifiers, by the name of their function.
OTHERS = {
    "gelu",
    "silu",
    "hardswish",
    "elu",
    "elu_",
    "selu",
    "celu",
    "mish",
    "softplus",
    "tanh",
    "sigmoid",
    "hardsigmoid",
}
# A clamp from 0 to one of these caps keeps an image or a share in its range; it is no rectifier.
_BOXES = (1, 255)
# Comparisons, and conversions of their results, by name.
_COMPARISONS = {"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "heaviside"}
_CONVERSIONS = {"float", "double", "half", "bfloat16", "int", "long", "to", "type", "type_as", "clone", "detach"}
_CONVERSIONS |= {"_to_copy", "logical_not", "bitwise_not", "__invert__"}


class Rectifier(NamedTuple):
    """A call of a rectifier.

    Attributes:
        z: its input.
        slope: the share of the input that is returned below zero; a tensor broadcasts against the input.
        cap: the largest value, or None.
        in_place: whether the input itself must change.
    """

    z: Tensor
    slope: float | Tensor = 0.0
    cap: float | None = None
    in_place: bool = False


class Recogniser:
    """Recognise the rectifiers among the calls of torch functions of one pass.

    The results of comparisons are remembered as long as they live, because a product or a choice is a rectifier only
    if its mask comes from a comparison.
    """

    def __init__(self) -> None:
        self._masks: dict[int, weakref.ref[Tensor]] = {}

    def find(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier | None:
        """Return the rectifier that a call computes, or None if it computes something else."""
        name = name_of(func)
        plain = name.rstrip("_") if not name.startswith("__") else name
        read = _BY_NAME.get(plain) or _BY_BOUND.get(plain)
        if read is not None:
            found = read(_Arguments(args, kwargs))
        elif plain in _BY_MASK:
            found = _BY_MASK[plain](_Arguments(args, kwargs), self._is_mask)
        else:
            return None
        if found is None or "out" in kwargs or not found.z.is_floating_point():
            return None
        # torch writes functions that work in place as `relu_`, and operators as `__mul__`
        in_place = found.in_place or name.endswith("_") != name.startswith("__") or name in ("__imul__", "__setitem__")
        return found._replace(in_place=in_place)

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """Remember the result of a call if it is a mask that comes from a comparison."""
        name = name_of(func)
        made = name in _COMPARISONS or (name in _CONVERSIONS and bool(args) and self._is_mask(args[0]))
        if made and isinstance(result, Tensor):
            self._masks[id(result)] = weakref.ref(result)

    def _is_mask(self, value: Any) -> bool:
        known = self._masks.get(id(value))
        return known is not None and known() is value


def name_of(func: Callable[..., Any]) -> str:
    """Return the name of a torch function, without the overload of an operator such as `relu.default`."""
    return str(getattr(func, "__name__", "")).split(".", 1)[0]


class _Arguments:
    """The arguments of a call, by place or name."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def get(self, place: int, *names: str, default: Any = None) -> Any:
        given = next((self.kwargs[name] for name in names if name in self.kwargs), default)
        return self.args[place] if len(self.args) > place else given

    @property
    def z(self) -> Tensor:
        """Return the first argument."""
        z = self.get(0, "input", "self")
        assert isinstance(z, Tensor)
        return z


# --- by name ---------------------------------------------------------------------------------------------------------


def _relu(a: _Arguments) -> Rectifier:
    return Rectifier(a.z, in_place=bool(a.get(1, "inplace")))


def _relu6(a: _Arguments) -> Rectifier:
    return Rectifier(a.z, cap=6.0, in_place=bool(a.get(1, "inplace")))


def _hardtanh(a: _Arguments) -> Rectifier | None:
    low, high = a.get(1, "min_val", default=-1.0), a.get(2, "max_val", default=1.0)
    return Rectifier(a.z, cap=float(high), in_place=bool(a.get(3, "inplace"))) if low == 0 else None


def _leaky_relu(a: _Arguments) -> Rectifier:
    slope = a.get(1, "negative_slope", default=0.01)
    return Rectifier(a.z, slope, in_place=bool(a.get(2, "inplace")))


def _prelu(a: _Arguments) -> Rectifier:
    slope = a.get(1, "weight").detach()
    shape = [1, -1, *[1] * (a.z.dim() - 2)] if slope.dim() == 1 and slope.numel() > 1 else slope.shape
    return Rectifier(a.z, slope.reshape(shape))


def _rrelu(a: _Arguments) -> Rectifier | None:
    if a.get(3, "training"):  # its slopes are random
        return None
    slope = (a.get(1, "lower", default=1 / 8) + a.get(2, "upper", default=1 / 3)) / 2
    return Rectifier(a.z, slope, in_place=a.get(4, "inplace") is True)


def _threshold(a: _Arguments) -> Rectifier | None:
    fits = a.get(1, "threshold") == 0 and a.get(2, "value") == 0
    return Rectifier(a.z, in_place=a.get(3, "inplace") is True) if fits else None


_BY_NAME: dict[str, Callable[[_Arguments], Rectifier | None]] = {
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "rrelu": _rrelu,
    "threshold": _threshold,
    "_threshold": _threshold,  # what `F.threshold` is called inside
}


# --- by a bound ------------------------------------------------------------------------------------------------------


def _clamp(a: _Arguments) -> Rectifier | None:
    low, high = a.get(1, "min"), a.get(2, "max")
    if not _is_zero(low, a.z) or isinstance(high, Tensor) or high in _BOXES:
        return None
    return Rectifier(a.z, cap=None if high is None else float(high))


def _maximum(a: _Arguments) -> Rectifier | None:
    one, other = a.get(0, "input", "self"), a.get(1, "other", "min")
    if not isinstance(one, Tensor) or isinstance(other, bool) or (isinstance(other, int | float) and other != 0):
        return None
    if _is_zero(other, one):
        return Rectifier(one)
    if not isinstance(other, Tensor) or one.dtype != other.dtype:
        return None
    if _is_zero(one, other):
        return Rectifier(other)
    slope = _share(other, one)  # the maximum of z and a share of it is a leaky rectifier
    if slope is not None:
        return Rectifier(one, slope) if slope < 1 else Rectifier(other, 1 / slope)
    return None


def _max(a: _Arguments) -> Rectifier | None:
    return _maximum(a) if isinstance(a.get(1, "other"), Tensor) else None  # otherwise it reduces a dimension


_BY_BOUND = {"clamp": _clamp, "clip": _clamp, "clamp_min": _maximum, "maximum": _maximum, "fmax": _maximum, "max": _max}


def _is_zero(value: Any, z: Tensor) -> bool:
    """Return whether a value is zero, or a tensor of zeros of the dtype of `z` that broadcasts to its shape."""
    if isinstance(value, bool) or value is None:
        return False
    if not isinstance(value, Tensor):
        return bool(value == 0)
    return _fits(value, z) and not bool(value.any())


def _fits(value: Tensor, z: Tensor) -> bool:
    """Return whether an operation on both returns the shape and the dtype of `z`."""
    shape = value.shape == z.shape or torch.broadcast_shapes(value.shape, z.shape) == z.shape
    return shape and torch.result_type(value, z) == z.dtype


def _share(value: Tensor, z: Tensor) -> float | None:
    """Return `s` if `value` is `s z` everywhere with 0 < s < ∞, or else None."""
    if value.shape != z.shape or value.dtype != z.dtype or not z.numel():
        return None
    value, z = value.detach().flatten(), z.detach().flatten()
    first = z.abs().argmax()
    share = float(value[first]) / float(z[first]) if bool(z[first] != 0) else 0.0
    return share if share > 0 and torch.allclose(value, share * z, rtol=1e-3, atol=0) else None


# --- by a comparison -------------------------------------------------------------------------------------------------

_IsMask = Callable[[Any], bool]


def _signs(mask: Tensor, z: Tensor) -> bool | None:
    """Return True if a mask is one exactly where z is positive, False if exactly where z is negative, else None."""
    if mask.shape != z.shape:
        return None
    on, z = mask.detach() != 0, z.detach()
    if bool(((on == (z > 0)) | (z == 0)).all()):
        return True
    return False if bool(((on == (z < 0)) | (z == 0)).all()) else None


def _product(a: _Arguments, is_mask: _IsMask) -> Rectifier | None:
    one, other = a.get(0, "input", "self"), a.get(1, "other")
    z, mask = (one, other) if is_mask(other) else (other, one)
    if not (isinstance(z, Tensor) and is_mask(mask) and _fits(mask, z)) or _signs(mask, z) is not True:
        return None
    return Rectifier(z)


def _choice(a: _Arguments, is_mask: _IsMask) -> Rectifier | None:
    """Return the rectifier that `where(z > 0, z, s z)`, or `where(z < 0, s z, z)`, computes."""
    mask, yes, no = a.get(0, "condition"), a.get(1, "input", "self"), a.get(2, "other")
    if isinstance(mask, Tensor) and isinstance(yes, Tensor) and not is_mask(mask) and is_mask(yes):
        mask, yes = yes, mask  # the method `z.where(mask, other)`
    if not is_mask(mask):
        return None
    for z, below, wanted in ((yes, no, True), (no, yes, False)):
        if isinstance(z, Tensor) and z.is_floating_point() and _signs(mask, z) is wanted:
            share = 0.0 if _is_zero(below, z) else _share(below, z) if isinstance(below, Tensor) else None
            if share is not None:
                return Rectifier(z, share)
    return None


def _filled(a: _Arguments, is_mask: _IsMask) -> Rectifier | None:
    z, mask, value = a.z, a.get(1, "mask"), a.get(2, "value")
    fits = is_mask(mask) and _signs(mask, z) is False and _is_zero(value, z)
    return Rectifier(z) if fits else None


_BY_MASK: dict[str, Callable[[_Arguments, _IsMask], Rectifier | None]] = {
    "mul": _product,
    "multiply": _product,
    "__mul__": _product,
    "__rmul__": _product,
    "__imul__": _product,
    "where": _choice,
    "masked_fill": _filled,
    "__setitem__": _filled,
}
