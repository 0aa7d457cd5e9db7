"""Replace operations that have no second derivative in torch, or a slow one, by equal ones that have a fast one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from underfire.hooks.frozen_layers import DIMENSIONS, convolve, normalise
from underfire.hooks.rectifiers import name_of


@contextmanager
def twice_differentiable(layers: bool = True) -> Iterator[TwiceDifferentiable]:
    """Compute attention without fused kernels, and hard sigmoids by parts, so that both have a second derivative.

    Convolutions and batch norms with frozen weights get one that costs no more than a pass.

    Args:
        layers: whether hard sigmoids, convolutions and batch norms are replaced, which makes every function of torch
            inside the block a little slower.

    Yields:
        Whether a hard sigmoid was found, as `hard_sigmoids`.
    """
    mode = TwiceDifferentiable()
    with sdpa_kernel(SDPBackend.MATH), mode if layers else nullcontext():
        yield mode


class _HardSigmoid(torch.autograd.Function):
    """The hard sigmoid, `clamp(z / 6 + 1 / 2, 0, 1)`, whose backward pass can be differentiated."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return F.hardsigmoid(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grads[0] * ((z > -3) & (z < 3)) / 6


class TwiceDifferentiable(TorchFunctionMode):
    """Replace hard sigmoids, and convolutions and batch norms of frozen weights, inside the block.

    Attributes:
        hard_sigmoids: whether a hard sigmoid was called.
    """

    hard_sigmoids = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if name in ("hardsigmoid", "hardsigmoid_"):
            self.hard_sigmoids = True
            z = args[0] if args else kwargs["input"]
            if name == "hardsigmoid_" or kwargs.get("inplace", len(args) > 1 and args[1]):
                return z.copy_(_HardSigmoid.apply(z.clone()))
            return _HardSigmoid.apply(z)
        replaced = None
        if name in DIMENSIONS:
            replaced = convolve(func, name, args, kwargs)
        elif name == "batch_norm":
            replaced = normalise(func, args, kwargs)
        return func(*args, **kwargs) if replaced is None else replaced
