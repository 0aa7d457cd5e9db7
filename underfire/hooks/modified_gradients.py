"""Let calls inside a network pass back something else than their gradient, for maps that are modified gradients.

`instead` gives one tensor another backward pass, and `ModifiedGradients` applies it to chosen calls of torch functions,
in whatever layer or function they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.hooks.rectifiers import OTHERS, name_of

Branch = tuple[Tensor, Tensor | float]
"""A tensor that gets the gradient, and what the gradient is multiplied by."""


class ModifiedGradients(TorchFunctionMode):
    """Replace the backward passes of calls inside the block, until it ends.

    Inside the block, `torch.autograd.grad` computes the modified gradient. It may carry a graph, and after the block
    all calls pass back their true gradient again, so that the derivative of the modified gradient is right.

    Args:
        attached: whether the modified gradient carries a graph.

    Attributes:
        active: whether the block is open.
        seen: the number of calls whose backward pass was replaced.
    """

    #: Names of functions whose calls in place stay as they are.
    kept: frozenset[str] = frozenset()

    def __init__(self, *, attached: bool) -> None:
        super().__init__()
        self.attached, self.active, self.seen = attached, True, 0

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.active = False

    def call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call with its own backward pass, or NotImplemented to leave the call as it is.

        Args:
            name: the name of the function, without the underscore of one that works in place.
            func: computes the result, never in place.
        """
        raise NotImplementedError

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        name = name_of(func)
        target = None if name.rstrip("_") in self.kept else _target(name, args, kwargs)
        if target is None:
            result = self.call(name, func, args, kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result

        def apart(z: Tensor, *rest: Any, **options: Any) -> Any:
            return func(z.clone(), *rest, **options)

        apart.__name__ = name
        # the caller may ignore the result of a call that works in place, so the tensor itself must change
        copy, options = target.clone(), {key: value for key, value in kwargs.items() if key != "input"}
        self.rename(target, copy)
        result = self.call(_PLAIN.get(name, name.rstrip("_")), apart, (copy, *args[1:]), options)
        if not isinstance(result, Tensor):
            return func(*args, **kwargs)
        self.rename(result, target.copy_(result))
        return target

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Note that `after` has the values of `before`: a call in place reads a copy, and writes its result back."""

    def factors(self) -> AbstractContextManager[None]:
        """Return a context in which the factors of branches are computed, with a graph only if that is needed."""
        return torch.set_grad_enabled(self.attached)

    def instead(self, value: Tensor, *branches: Branch) -> Tensor:
        """Return `value`; inside the block, its gradient goes to the branches, and after the block to `value`.

        Args:
            branches: each a tensor and a factor, a number or a tensor that broadcasts to `value`. The gradient of
                `value` times the factor is the gradient of the tensor.
        """
        self.seen += 1
        flat = [part for tensor, factor in branches for part in (tensor, factor)]
        result: Tensor = _Instead.apply(self, value, *flat)
        return result


_PLAIN = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div"}


def _target(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor that a call changes in place, or None."""
    in_place = name in _PLAIN or name == "__setitem__" or (name.endswith("_") and not name.startswith("_"))
    if name.rstrip("_") in OTHERS or name in ("relu", "relu6", "leaky_relu", "hardtanh"):
        in_place = in_place or kwargs.get("inplace") is True or any(value is True for value in args[1:])
    target = args[0] if args else kwargs.get("input")
    return target if in_place and isinstance(target, Tensor) and target.requires_grad else None


class _Instead(torch.autograd.Function):
    """A tensor whose gradient goes to other tensors while a block is open."""

    @staticmethod
    def forward(ctx: Any, block: ModifiedGradients, value: Tensor, *flat: Any) -> Tensor:
        ctx.block, ctx.numbers = block, [part if not isinstance(part, Tensor) else None for part in flat[1::2]]
        ctx.save_for_backward(*(part for part in flat[1::2] if isinstance(part, Tensor)))
        ctx.shapes = [tensor.shape for tensor in flat[::2]]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g, saved = grads[0], iter(ctx.saved_tensors)
        if not ctx.block.active:
            return None, g, *[None] * (2 * len(ctx.numbers))
        factors = [next(saved) if number is None else number for number in ctx.numbers]
        passed = [(g * f).sum_to_size(shape) for f, shape in zip(factors, ctx.shapes, strict=True)]
        return None, None, *(part for one in passed for part in (one, None))
