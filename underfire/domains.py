"""Domains: the kinds of input that a model takes, each with its shape, its box and the columns that must not change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from underfire.errors import DataError, InputError, Unsupported
from underfire.validate import check_labels

KINDS = ("numeric", "categorical", "immutable")
#: Names of the domains that an additive attack supports: those with a box and numeric columns.
ADDITIVE = ("image", "table", "series")


@dataclass(frozen=True)
class Domain:
    """One kind of input: the shape of a batch, the box of its values, and the columns that may change.

    Attributes:
        name: `"image"`, `"table"`, or another word; the card of a method names the domains that it supports.
        ndim: number of dimensions of a batch, with the batch dimension: 4 for images, 2 for tables.
        low: the smallest value, one number or one per column of the last dimension.
        high: the largest value, one number or one per column of the last dimension.
        kinds: the kind of each column of the last dimension: `"numeric"`, `"categorical"` or `"immutable"`. An additive
            attack changes only numeric columns. If empty, every column is numeric.

    Raises:
        InputError: a bound or a kind is wrong.
    """

    name: str
    ndim: int
    low: float | tuple[float, ...] = 0.0
    high: float | tuple[float, ...] = 1.0
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ndim < 2:
            raise InputError(f"a domain needs ndim >= 2 (the batch and at least one of features), got {self.ndim}")
        columns = {len(part) for part in (self.low, self.high, self.kinds) if isinstance(part, tuple) and part}
        if len(columns) > 1:
            raise InputError(f"low, high and kinds must have the same number of columns, got {sorted(columns)}")
        low, high = torch.as_tensor(self.low), torch.as_tensor(self.high)
        if not bool((low < high).all()):
            raise InputError(f"low must be below high in every column, got {self.low} and {self.high}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise InputError(f"unknown kind {kind!r} of a column; choices: {', '.join(KINDS)}")

    @property
    def unit_box(self) -> bool:
        """Return whether the box is `[0, 1]` for every value."""
        return self.low == 0 and self.high == 1

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest values, broadcastable to `x`, with the dtype and device of `x`."""
        return _constant(self.low, x.dtype, x.device), _constant(self.high, x.dtype, x.device)

    def clip(self, x: Tensor) -> Tensor:
        """Return `x` with every value clipped to the box."""
        return x.clamp(0, 1) if self.unit_box else x.clamp(*self.box(x))

    def mutable(self, x: Tensor) -> Tensor | None:
        """Return 1 for every column that may change and 0 for the others, `[F]`; None if all may change."""
        if all(kind == "numeric" for kind in self.kinds):
            return None
        return _constant(tuple(float(kind == "numeric") for kind in self.kinds), x.dtype, x.device)

    def check(self, x: Tensor, *, loose: bool = False) -> None:
        """Raise DataError unless `x` is a batch of this domain, with values in the box.

        Half-precision inputs are refused, because they round away the steps of an attack of 1/255; the model may have
        any dtype. With `loose`, as for an explanation, they pass, and so do inputs that noise has moved out of the box
        by no more than the width of the box.
        """
        inputs = "images" if self.name == "image" else f"inputs of domain {self.name!r}"
        allowed = (torch.float32, torch.float64, *((torch.float16, torch.bfloat16) if loose else ()))
        if x.dim() != self.ndim or x.dtype not in allowed or x.layout != torch.strided:
            shape = "[B, C, H, W]" if self.name == "image" else f"with {self.ndim} dimensions"
            raise DataError(f"{inputs} must be float32 or float64 {shape}, got {x.dtype} {tuple(x.shape)}")
        for part in (self.low, self.high, self.kinds):
            if isinstance(part, tuple) and part and len(part) != x.shape[-1]:
                raise DataError(f"{inputs} must have {len(part)} columns, got {x.shape[-1]}")
        bottom, top = self.box(x)
        width = top - bottom if loose else 0
        if len(x) and not bool(((x >= bottom - width) & (x <= top + width)).all()):
            low, high = (
                f"{bound:g}" if isinstance(bound, int | float) else "its bound" for bound in (self.low, self.high)
            )
            word = "pixels" if self.name == "image" else "values"
            least, most = (float(bound) for bound in x.detach().aminmax())
            raise DataError(f"{word} must be in [{low}, {high}], got values from {least:g} to {most:g}")

    def contains(self, x: Tensor) -> Tensor:
        """Return which entries lie in the box, bool like `x`; NaN lies outside."""
        low, high = self.box(x)
        return (x >= low) & (x <= high)

    def require_images(self, what: str) -> None:
        """Raise Unsupported unless the inputs are images; `what` names the method that needs images."""
        if self.ndim != 4:
            raise Unsupported(f"{what} needs images [B, C, H, W], but the model takes domain {self.name!r}")


IMAGES = Domain("image", 4)


@lru_cache(maxsize=64)
def _constant(values: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=dtype, device=device)


def domain_of(model: nn.Module) -> Domain:
    """Return the domain of a model: its attribute `domain`, or images if it has none."""
    domain = getattr(model, "domain", IMAGES)
    return domain if isinstance(domain, Domain) else IMAGES


def check_inputs(model: nn.Module, x: Tensor, y: Tensor, goal: Tensor | None = None) -> None:
    """Raise an error unless an attack on the model can use these inputs, labels and goals.

    Raises:
        DataError: `x` is not a batch of the model's domain, or `y` or `goal` is not int64 `[B]` with classes >= 0.
    """
    domain_of(model).check(x)
    check_labels(x, y, goal)
