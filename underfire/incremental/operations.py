"""Rules by which the operations of a network are computed on activations that differ from known ones in a rectangle.

A stand-in (`Changed`) represents such an activation. A rule tells how an operation is computed on the rectangle alone,
and which places of its result can differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from underfire.incremental.intervals import Window
from underfire.incremental.rectangles import Changed

aten = torch.ops.aten
# Batch normalisation, which works place by place in evaluation mode.
_NORMS = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
# Operations that work place by place, although torch does not tag them as pointwise.
_PLACE_BY_PLACE = {"_to_copy", "clone", "detach", "alias", "_prelu_kernel", "hardswish"}
# Windows of an operation that works place by place.
ALONE = (Window(), Window())
# Operations that select channels, if they work on that dimension.
_BY_CHANNEL = {"slice", "split", "split_with_sizes", "narrow"}


@dataclass(frozen=True)
class OperationRule:
    """Describe how one call of an operation is computed on rectangles.

    Attributes:
        whole: the function that computes the call on full tensors in place of the stand-ins; it writes into none.
        part: the function that computes the call on rectangles, which include the margins that it reads.
        windows: how the rows and the columns of the only stand-in are read; by default place by place.
        outside: the value that the operation reads outside the map, its padding.
        moved: how many rows and columns the operation puts before the map; None if it does not pad.
        in_place: whether the first stand-in takes the result.
        view: whether the result is a view of the stand-in.
    """

    whole: Callable[..., Any]
    part: Callable[..., Any]
    windows: tuple[Window, Window] = ALONE
    outside: float = 0.0
    moved: tuple[int, int] | None = None
    in_place: bool = False
    view: bool = False

    @property
    def reads_around(self) -> bool:
        """Return whether a place of the result depends on other places than itself."""
        return self.windows != ALONE


def rule_for(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OperationRule | None:
    """Return the rule for a call that reads at least one stand-in, or None if there is no rule."""
    name, schema = func._schema.name.removeprefix("aten::"), func._schema
    # an operation in place has the rule of the one that returns a new tensor
    in_place = torch.Tag.inplace in func.tags
    if in_place:
        if not isinstance(args[0], Changed) or not hasattr(aten, name[:-1]):
            return None
        func, name = getattr(getattr(aten, name[:-1]), func._overloadname), name[:-1]
    elif schema.is_mutable:
        return None
    # all arguments by name
    given = {a.name: a.default_value for a in schema.arguments} | kwargs
    given |= {a.name: value for a, value in zip(schema.arguments, args, strict=False)}
    view = not in_place and any(a.alias_info is not None for a in schema.arguments)
    stand_ins = sum(isinstance(a, Changed) for a in tree_leaves((args, kwargs)))

    def call(*tensors: Tensor) -> Any:
        """Call the operation with `tensors` in place of its stand-ins."""
        rest = iter(tensors)
        a, k = tree_map(lambda v: next(rest) if isinstance(v, Changed) else v, (args, kwargs))
        result = func(*a, **k)
        return result.to(args[0].dtype) if in_place else result

    # `alike`: each place of the result depends on that place of the stand-ins alone, by the same function everywhere
    pointwise = torch.Tag.pointwise in func.tags or name in _PLACE_BY_PLACE
    if pointwise and torch.Tag.nondeterministic_seeded not in func.tags:
        alike = _alike(tree_leaves((args, kwargs)))
    elif name in _NORMS:
        alike = not given.get("training", given.get("train"))
    elif name == "cat":
        alike = (
            given["dim"] in (1, -3)
            and all(isinstance(a, Changed) for a in given["tensors"])
            and _alike(given["tensors"])
        )
    elif name in _BY_CHANNEL:
        alike = given["dim"] in (1, -3)
    elif name == "constant_pad_nd":
        left, right, top, bottom = (*given["pad"], 0, 0, 0, 0)[:4]
        if min(left, right, top, bottom) < 0 or len(given["pad"]) > 6:
            return None
        beside = [0, 0, 0, 0, *given["pad"][4:]]
        return OperationRule(call, lambda patch: func(patch, beside, given["value"]), moved=(top, left))
    else:
        alike = False
    if alike:
        return OperationRule(call, call, in_place=in_place, view=view)
    return _reading(name, given, call, view) if stand_ins == 1 and not in_place else None


def averages_places(func: Any, numbers: list[Any]) -> bool:
    """Return whether a call of an operation, with `numbers` as arguments that are no tensors, averages each map."""
    return (
        func is aten.mean.dim
        and [n % 4 for n in sorted(numbers[:2], key=lambda n: n % 4)] == [2, 3]
        and numbers[2:] in ([], [True], [False])
    )


def _alike(values: Sequence[Any]) -> bool:
    """Return whether all stand-ins have one size, and each other tensor has one value for all places and samples."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    sizes = {v.shape[2:] for v in tensors if isinstance(v, Changed)}
    others = (v.shape for v in tensors if not isinstance(v, Changed))
    return len(sizes) == 1 and all(
        (shape.numel() == 1 and len(shape) <= 4)
        or (len(shape) in (3, 4) and shape[-2:] == (1, 1) and (len(shape) == 3 or shape[0] == 1))
        for shape in others
    )


def _reading(name: str, given: dict[str, Any], call: Callable[..., Any], view: bool) -> OperationRule | None:
    """Return the rule for a call whose results each read several places of its only stand-in, or only some of them."""
    if name == "convolution" and isinstance(given["input"], Changed) and not given["transposed"]:
        weight, bias, groups = given["weight"], given["bias"], given["groups"]
        stride, padding, dilation = _pairs(given["stride"]), _pairs(given["padding"]), _pairs(given["dilation"])

        def convolve(x: Tensor) -> Tensor:
            return aten.convolution.default(x, weight, bias, stride, (0, 0), dilation, False, (0, 0), groups)

        return OperationRule(call, convolve, _windows(weight.shape[2:], stride, padding, dilation))
    if name in ("max_pool2d_with_indices", "avg_pool2d"):
        is_max = name != "avg_pool2d"
        kernel, padding = _pairs(given["kernel_size"]), _pairs(given["padding"])
        stride = _pairs(given["stride"] or kernel)
        dilation = _pairs(given["dilation"]) if is_max else (1, 1)
        if not is_max and (given["ceil_mode"] or (padding != (0, 0) and not given["count_include_pad"])):
            return None  # an average at the border is over fewer places than one inside

        def pool(x: Tensor) -> Any:
            if is_max:
                return aten.max_pool2d_with_indices.default(x, kernel, stride, (0, 0), dilation)
            return aten.avg_pool2d.default(x, kernel, stride, (0, 0), False, True, given["divisor_override"])

        outside = float("-inf") if is_max else 0.0
        return OperationRule(call, pool, _windows(kernel, stride, padding, dilation), outside)
    if name == "slice" and given["dim"] % 4 >= 2:
        axis, step = given["dim"] % 4, given["step"]
        start = slice(given["start"], given["end"]).indices(given["self"].shape[axis])[0]
        window = Window(1, step, -start)
        windows = (window, Window()) if axis == 2 else (Window(), window)
        return OperationRule(call, lambda x: aten.slice.Tensor(x, axis, None, None, step), windows, view=view)
    return None


def _windows(*of_each: Sequence[int]) -> tuple[Window, Window]:
    """Return the windows of rows and columns; each argument of `Window` is given as a pair."""
    rows, columns = zip(*of_each, strict=True)
    return Window(*rows), Window(*columns)


def _pairs(value: Any) -> tuple[int, int]:
    """Return one number, or a pair of numbers, as a pair."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]
