"""Look for rectifiers among the calls of torch functions of one pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor

from underfire.hooks.rectifiers.by_absolute import ABSOLUTE, BY_ABSOLUTE, SCALED
from underfire.hooks.rectifiers.by_bound import BY_BOUND
from underfire.hooks.rectifiers.by_mask import BY_MASK
from underfire.hooks.rectifiers.by_name import BY_NAME
from underfire.hooks.rectifiers.calls import Arguments, Rectifier, name_of

#: Activations that are not rectifiers, by the name of their function.
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
# Comparisons, and conversions of their results, by name.
_COMPARISONS = {"gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal", "heaviside"}
_CONVERSIONS = {"float", "double", "half", "bfloat16", "int", "long", "to", "type", "type_as", "clone", "detach"}
_CONVERSIONS |= {"_to_copy", "logical_not", "bitwise_not", "__invert__"}


_IN_PLACE = {"__imul__", "__iadd__", "__isub__", "__setitem__"}


class Recogniser:
    """Recognise the rectifiers among the calls of torch functions of one pass.

    The results of comparisons and absolute values are remembered as long as they live, because a product, a choice or a
    sum is a rectifier only if a part of it comes from one of these.
    """

    def __init__(self) -> None:
        self._masks: dict[int, weakref.ref[Tensor]] = {}
        self._absolute: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    def find(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rectifier | None:
        """Return the rectifier that a call computes, or None if it computes something else."""
        name = name_of(func)
        plain = name.rstrip("_") if not name.startswith("__") else name
        read = BY_NAME.get(plain) or BY_BOUND.get(plain)
        if read is not None:
            found = read(Arguments(args, kwargs))
        elif plain in BY_MASK:
            found = BY_MASK[plain](Arguments(args, kwargs), self._is_mask)
        elif plain in BY_ABSOLUTE and self._absolute:
            found = BY_ABSOLUTE[plain](Arguments(args, kwargs), self._source)
        else:
            return None
        if found is None or "out" in kwargs or not found.z.is_floating_point():
            return None
        # torch writes functions that work in place as `relu_`, and operators as `__mul__`
        in_place = found.in_place or name.endswith("_") != name.startswith("__") or name in _IN_PLACE
        return found._replace(in_place=in_place)

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """Remember the result of a call if it is a mask that comes from a comparison, or an absolute value."""
        name = name_of(func)
        if not args or not isinstance(result, Tensor):
            return
        if name in _COMPARISONS or (name in _CONVERSIONS and self._is_mask(args[0])):
            self._masks[id(result)] = weakref.ref(result)
        sources = [args[0]] if name in ABSOLUTE else map(self._source, args[:2]) if name in SCALED else ()
        z = next((z for z in sources if z is not None), None)
        if z is not None:
            key = id(result)
            self._absolute[key] = weakref.ref(result, lambda _: self._absolute.pop(key, None)), z

    def _is_mask(self, value: Any) -> bool:
        known = self._masks.get(id(value))
        return known is not None and known() is value

    def _source(self, value: Any) -> Tensor | None:
        """Return the tensor whose absolute value, times a number, is `value`, or None."""
        result, z = self._absolute.get(id(value), (None, None))
        return z if result is not None and result() is value else None
