"""Replace operations that have no second derivative in torch by equal ones that have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from underfire.hooks.rectifiers import name_of


@contextmanager
def twice_differentiable(hard_sigmoids: bool = True) -> Iterator[HardSigmoids]:
    """Compute attention without fused kernels, and hard sigmoids by parts, so that both have a second derivative.

    Args:
        hard_sigmoids: whether hard sigmoids are looked for, which slows down every function of torch inside the block.

    Yields:
        Whether one was found, as `found`.
    """
    mode = HardSigmoids()
    with sdpa_kernel(SDPBackend.MATH), mode if hard_sigmoids else nullcontext():
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


class HardSigmoids(TorchFunctionMode):
    """Replace every call of the hard sigmoid by `_HardSigmoid`; `found` says whether there was one."""

    found = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        if name not in ("hardsigmoid", "hardsigmoid_") or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        self.found = True
        z = args[0] if args else kwargs["input"]
        if name == "hardsigmoid_" or kwargs.get("inplace", len(args) > 1 and args[1]):
            return z.copy_(_HardSigmoid.apply(z.clone()))
        return _HardSigmoid.apply(z)
