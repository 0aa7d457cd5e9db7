"""Replacing what activations pass back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

R = TypeVar("R")


def _step(z: Tensor, tau: float) -> Tensor:
    """The seed's h(z), an approximation of the unit step: z / sqrt(z² + tau), plus one where z < 0."""
    wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z  # squares overflow in half precision
    bent = wide * torch.rsqrt(wide * wide + tau)
    return torch.where(z < 0, bent + 1, bent).to(z.dtype)


@dataclass(frozen=True)
class _Bend:
    """What a rectifier passes back of the gradient g it gets: which part of g, times which step.

    Attributes:
        positive: only where g is positive.
        masked: only where z let something through.
        tau: let h(z) with this tau be the step, value and derivative.
        width: keep the step, but let its derivative be that of a smooth step as wide as this share of the size of z.
    """

    positive: bool = False
    masked: bool = True
    tau: float | None = None
    width: float | None = None

    def step(self, z: Tensor, at: float = 0.0) -> Tensor:
        """The step at `at`, like z; the last of its three kinds only where it will be differentiated."""
        if self.tau is not None:
            return _step(z - at, self.tau)
        step = (z > at).to(z.dtype)
        if self.width is None or not torch.is_grad_enabled():
            return step
        wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        size = wide.detach().square().flatten(1).mean(1).reshape(-1, *[1] * (z.dim() - 1))
        smooth = 0.5 * (wide - at) * torch.rsqrt((wide - at).square() + self.width**2 * size + 1e-12)
        return step + (smooth - smooth.detach()).to(z.dtype)


class _Rectifier(torch.autograd.Function):
    """(Leaky, capped) ReLU forward; backward as the bend says."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: float, cap: float | None, bend: _Bend) -> Tensor:
        if bend.masked:
            ctx.save_for_backward(z)
        ctx.slope, ctx.cap, ctx.bend = slope, cap, bend
        if slope:
            return F.leaky_relu(z, slope)
        return z.clamp_min(0) if cap is None else z.clamp(0, cap)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        bend: _Bend = ctx.bend
        passed = grads[0].clamp_min(0) if bend.positive else grads[0]
        if bend.masked:
            (z,) = ctx.saved_tensors
            step = bend.step(z)
            if ctx.cap is not None:
                step = step - bend.step(z, ctx.cap)
            if ctx.slope:
                step = ctx.slope + (1 - ctx.slope) * step
            passed = passed * step
        return passed, None, None, None


def _rectifier(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[float, float | None, bool] | None:
    """Slope below zero, cap above, and whether in place, of a call that is a rectifier; None for any other call."""

    def argument(place: int, name: str, default: Any) -> Any:
        return kwargs.get(name, args[place] if len(args) > place else default)

    if func in (torch.relu, Tensor.relu):
        return 0.0, None, False
    if func in (torch.relu_, Tensor.relu_):
        return 0.0, None, True
    if func is F.relu:
        return 0.0, None, argument(1, "inplace", False)
    if func is F.relu6:
        return 0.0, 6.0, argument(1, "inplace", False)
    if func is F.hardtanh and argument(1, "min_val", -1.0) == 0:  # what nn.ReLU6 calls
        return 0.0, argument(2, "max_val", 1.0), argument(3, "inplace", False)
    if func is F.leaky_relu or func is F.leaky_relu_:
        return argument(1, "negative_slope", 0.01), None, func is F.leaky_relu_ or argument(2, "inplace", False)
    return None


class _Mode(TorchFunctionMode):
    def __init__(self, bend: _Bend) -> None:
        super().__init__()
        self.bend = bend

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = _rectifier(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        slope, cap, in_place = found
        z = args[0] if args else kwargs["input"]
        if not in_place:
            return _Rectifier.apply(z, slope, cap, self.bend)
        # The caller may ignore what an in-place call returns, so the input must change; a copy keeps z for the backward
        # pass.
        return z.copy_(_Rectifier.apply(z.clone(), slope, cap, self.bend))


_BEND: ContextVar[_Bend | None] = ContextVar("bend", default=None)


@contextmanager
def _bent(bend: _Bend) -> Iterator[None]:
    token = _BEND.set(bend)
    try:
        with _Mode(bend):
            yield
    finally:
        _BEND.reset(token)


def _outer_tau() -> float | None:
    """The tau of the `smooth_relu` around."""
    outer = _BEND.get()
    return outer.tau if outer else None


def capture_relu_rule(f: Callable[..., R]) -> Callable[..., R]:
    """`f`, inside which rectifiers pass back what they do here, wherever it is called.

    For passes that are made on the way back, which may begin after a `with smooth_relu()` has ended, and do not see it
    before that either.
    """
    bend = _BEND.get()

    @wraps(f)
    def as_then(*args: Any) -> R:
        if bend is None and _BEND.get() is None:
            return f(*args)
        # Also where the bend is the same: while `torch.autograd.grad` runs, torch suspends the mode it was called in.
        with _bent(bend or _Bend()):
            return f(*args)

    return as_then


@contextmanager
def smooth_relu(tau: float = 1e-4) -> Iterator[None]:
    """Inside, every ReLU, ReLU6 and LeakyReLU passes back the smooth step h instead of the unit step.

    The second derivative of a ReLU network is zero almost everywhere, so nothing that is itself a gradient (such as
    gradient saliency) could be attacked by gradients. The forward pass, and with it every prediction, is unchanged.
    Works for modules and functions, in place or not; custom kernels are not seen. Source: Zhang et al., Interpretable
    Deep Learning under Fire, USENIX Security 2020, section 3.2: h(z) = z / sqrt(z² + tau), plus 1 where z < 0.
    """
    with _bent(_Bend(tau=tau)):
        yield


@contextmanager
def wide_relu(width: float = 1.0) -> Iterator[None]:
    """Inside, every rectifier passes back what it always does, whose derivative is that of a smooth and wide step.

    Unlike inside `smooth_relu`, no gradient changes; only what a gradient itself is differentiated to. Inside
    `smooth_relu`, its steps stay.

    Args:
        width: of the smooth step, as a share of the root mean square of what the rectifier gets from each image.
    """
    tau = _outer_tau()
    with _bent(_Bend(tau=tau, width=width if tau is None else None)):
        yield


@contextmanager
def guided_relu(*, width: float | None = None) -> Iterator[None]:
    """Inside, every rectifier passes back only what is positive, and only where it was open itself.

    Inside `smooth_relu`, h is the step here too. Source: Springenberg et al., Striving for Simplicity, ICLR Workshops
    2015.

    Args:
        width: differentiate the step as if it were a smooth one this wide, as a share of the root mean square of what
            the rectifier gets, so that what is passed back has a derivative of its own; its value stays.
    """
    tau = _outer_tau()
    with _bent(_Bend(positive=True, tau=tau, width=width if tau is None else None)):
        yield


@contextmanager
def deconv_relu() -> Iterator[None]:
    """Inside, every rectifier passes back what is positive, wherever it was open or not.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    with _bent(_Bend(positive=True, masked=False)):
        yield
