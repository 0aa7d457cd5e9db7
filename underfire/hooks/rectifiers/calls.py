"""Describe a call of a torch function: its arguments, and the rectifier that it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rectifier(NamedTuple):
    """A call of a rectifier.

    Attributes:
        z: its input.
        slope: the share of the input that is returned below zero; a tensor broadcasts against the input.
        cap: the largest value, or None.
        in_place: whether the first argument of the call itself must change.
        scale: what the rectified input is multiplied by.
    """

    z: Tensor
    slope: float | Tensor = 0.0
    cap: float | None = None
    in_place: bool = False
    scale: float = 1.0


def name_of(func: Callable[..., Any]) -> str:
    """Return the name of a torch function, without the overload of an operator such as `relu.default`."""
    return str(getattr(func, "__name__", "")).split(".", 1)[0]


class Arguments:
    """The arguments of a call, by place or name."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def get(self, place: int, *names: str, default: Any = None) -> Any:
        """Return the argument at a place, or with one of the names, or the default."""
        given = next((self.kwargs[name] for name in names if name in self.kwargs), default)
        return self.args[place] if len(self.args) > place else given

    @property
    def z(self) -> Tensor:
        """Return the first argument."""
        z = self.get(0, "input", "self")
        assert isinstance(z, Tensor)
        return z


def is_zero(value: Any, z: Tensor) -> bool:
    """Return whether a value is zero, or a tensor of zeros of the dtype of `z` that broadcasts to its shape."""
    if isinstance(value, bool) or value is None:
        return False
    if not isinstance(value, Tensor):
        return bool(value == 0)
    return fits(value, z) and not bool(value.any())


def fits(value: Tensor, z: Tensor) -> bool:
    """Return whether an operation on both returns the shape and the dtype of `z`."""
    shape = value.shape == z.shape or torch.broadcast_shapes(value.shape, z.shape) == z.shape
    return shape and torch.result_type(value, z) == z.dtype


def share_of(value: Tensor, z: Tensor) -> float | None:
    """Return `s` if `value` is `s z` everywhere with 0 < s < ∞, or else None."""
    if value.shape != z.shape or value.dtype != z.dtype or not z.numel():
        return None
    value, z = value.detach().flatten(), z.detach().flatten()
    first = z.abs().argmax()
    share = float(value[first]) / float(z[first]) if bool(z[first] != 0) else 0.0
    return share if share > 0 and torch.allclose(value, share * z, rtol=1e-3, atol=0) else None
