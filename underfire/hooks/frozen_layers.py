"""Compute convolutions and batch norms whose weights are frozen so that their second derivatives cost one pass.

The second derivatives of torch also compute those by the weights, for each group of a convolution apart, and write a
batch norm as some twenty operations. With frozen weights both functions are linear: the derivative of the backward pass
is a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

DIMENSIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
"""The spatial dimensions of the convolutions that are replaced, by the name of the function."""


class Settings(NamedTuple):
    """The settings of a convolution, with one number for each spatial dimension."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def convolve(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the convolution of a call, or None if its weights are not frozen or its padding is given by a name.

    Args:
        function: the function that was called, such as `torch.conv2d`.
        name: its name, one of `DIMENSIONS`.
        args: its positional arguments: input, weight, bias, stride, padding, dilation, groups.
        kwargs: its arguments by name.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    z, weight, bias = given["input"], given["weight"], given.get("bias")
    dimensions, padding = DIMENSIONS[name], given.get("padding", 0)
    if isinstance(padding, str) or z.dim() != dimensions + 2 or z.dtype != weight.dtype or not _frozen(z, weight, bias):
        return None
    settings = Settings(
        _each(given.get("stride", 1), dimensions),
        _each(padding, dimensions),
        _each(given.get("dilation", 1), dimensions),
        given.get("groups", 1),
    )
    result: Tensor = _Convolution.apply(z, weight, bias, function, settings)
    return result


def normalise(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the batch norm of a call, or None if it depends on the batch or its weights are not frozen.

    Args:
        function: the function that was called, `torch.nn.functional.batch_norm` or `torch.batch_norm`.
        args: its positional arguments: for the former, input, mean, variance, weight, bias, training, momentum, eps.
        kwargs: its arguments by name.
    """
    if function is not F.batch_norm:
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    z, mean, variance = given["input"], given["running_mean"], given["running_var"]
    weight, bias = given.get("weight"), given.get("bias")
    if given.get("training", False) or mean is None or variance is None or not _frozen(z, mean, variance, weight, bias):
        return None
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    scale = (scale if weight is None else scale * weight).to(z.dtype)
    result: Tensor = _Affine.apply(z, scale.view(-1, *[1] * (z.dim() - 2)), lambda: function(*args, **kwargs))
    return result


def _frozen(z: Tensor, *weights: Tensor | None) -> bool:
    """Return whether a derivative by the input is wanted, and none by the weights."""
    if not z.requires_grad or torch.is_autocast_enabled(z.device.type):  # autocast changes the dtypes of a call
        return False
    return all(w is None or (type(w) in (Tensor, torch.nn.Parameter) and not w.requires_grad) for w in weights)


def _each(value: int | tuple[int, ...], dimensions: int) -> list[int]:
    """Return one number for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dimensions if len(values) == 1 else values


class _Convolution(torch.autograd.Function):
    """A convolution by a constant weight."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor | None, function: Callable[..., Tensor], settings: Settings
    ) -> Tensor:
        ctx.save_for_backward(z, weight)
        ctx.function, ctx.settings = function, settings
        return function(z, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        z, weight = ctx.saved_tensors
        passed = _Transposed.apply(grads[0], z.detach(), weight, ctx.function, ctx.settings)
        return passed, None, None, None, None


class _Transposed(torch.autograd.Function):
    """The backward pass of a convolution by a constant weight, which is linear too; `z` only gives the shape."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, z: Tensor, weight: Tensor, function: Callable[..., Tensor], settings: Settings
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.function, ctx.settings = function, settings
        stride, padding, dilation, groups = settings
        none = [0] * len(stride)
        passed: Tensor = torch.ops.aten.convolution_backward(
            g, z, weight, None, stride, padding, dilation, False, none, groups, (True, False, False)
        )[0]
        return passed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        passed = _Convolution.apply(grads[0], weight, None, ctx.function, ctx.settings)
        return passed, None, None, None, None


class _Affine(torch.autograd.Function):
    """A batch norm of fixed statistics: the gradient is multiplied by a constant scale."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        ctx.save_for_backward(scale)
        return compute()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grads[0] * scale, None, None
