"""Change rectifiers, in the backward pass (smooth and wide steps, guided, deconvolution) or in both (softplus)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from underfire.errors import Unsupported
from underfire.hooks.rectifiers import OTHERS, Recogniser, name_of
from underfire.validate import per_sample

R = TypeVar("R")


def _step(z: Tensor, tau: float) -> Tensor:
    """Return h(z), a smooth approximation of the unit step: z / sqrt(z² + tau), plus one where z < 0."""
    wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z  # squares overflow in half precision
    step = wide * torch.rsqrt(wide * wide + tau)
    return torch.where(z < 0, step + 1, step).to(z.dtype)


@dataclass(frozen=True)
class _ReluRule:
    """The backward pass of a rectifier, which gets the gradient g of its output and had the input z.

    Attributes:
        positive: pass back only positive g.
        masked: pass back only where z was positive, that is, multiply g by the unit step of z.
        tau: replace the unit step and its derivative by h(z) with this tau.
        width: keep the value of the unit step, but give it the derivative of a smooth step whose width is this share
            of the root mean square of z.
        beta: replace the rectifier by the softplus log(1 + exp(beta z)) / beta, and the unit step by its derivative.
    """

    positive: bool = False
    masked: bool = True
    tau: float | None = None
    width: float | None = None
    beta: float | None = None

    def value(self, z: Tensor, slope: float | Tensor, cap: float | None) -> Tensor:
        """Return what the rectifier answers; without `beta`, exactly what torch computes."""
        if self.beta is not None:
            risen = (
                F.softplus(z, self.beta) if cap is None else F.softplus(z, self.beta) - F.softplus(z - cap, self.beta)
            )
            return slope * z + (1 - slope) * risen if isinstance(slope, Tensor) or slope else risen
        if isinstance(slope, Tensor):
            return torch.where(z > 0, z, slope * z)
        if slope:
            return F.leaky_relu(z, slope)
        return z.clamp_min(0) if cap is None else z.clamp(0, cap)

    def step(self, z: Tensor, at: float = 0.0) -> Tensor:
        """Return the step from 0 to 1 where z passes `at`, shaped like z."""
        if self.beta is not None:
            return torch.sigmoid(self.beta * (z - at))
        if self.tau is not None:
            return _step(z - at, self.tau)
        if self.width is None or not torch.is_grad_enabled():
            return (z > at).to(z.dtype)
        return cast(Tensor, _WideStep.apply(z, at, self.width))


class _WideStep(torch.autograd.Function):
    """The unit step of z, with the derivative of a smooth step that is `width` root mean squares of z wide."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, at: float, width: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.at, ctx.width = at, width
        return (z > at).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        size = per_sample(wide.detach().square().flatten(1).mean(1), z)
        # u / sqrt(u² + s) / 2 has the derivative s / sqrt(u² + s)³ / 2
        s = ctx.width**2 * size + 1e-12
        return grads[0] * (0.5 * s * ((wide - ctx.at).square() + s).rsqrt().pow(3)).to(z.dtype), None, None


class Seen:
    """What the calls inside a block computed, and the rule for their backward pass.

    Attributes:
        rule: the rule; after the block, a rectifier passes back as usual (`tau` and `width` stay), so that the
            derivative of a map that was computed in the block is right.
        rectifiers: the number of rectifiers.
        others: the names of other activations.
    """

    def __init__(self, rule: _ReluRule) -> None:
        self.rule, self.rectifiers = rule, 0
        self.others: set[str] = set()

    def require_rectifiers(self, method: str) -> None:
        """Raise Unsupported if no rectifier was called, so that a rule for rectifiers changed nothing."""
        if self.rectifiers:
            return
        if self.others:
            has = f"activations {', '.join(sorted(self.others))} and no rectifier"
        else:
            has = "no rectifier that can be seen (compiled networks, such as those of torch.jit, show none)"
        raise Unsupported(
            f"{method} changes what rectifiers, such as ReLU, pass back, and this model has {has}; "
            "use gradient or integrated_gradients"
        )


class _Rectifier(torch.autograd.Function):
    """A (leaky, capped) ReLU that follows a rule."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: float | Tensor, cap: float | None, seen: Seen) -> Tensor:
        ctx.save_for_backward(z)
        ctx.slope, ctx.cap, ctx.seen = slope, cap, seen
        return seen.rule.value(z, slope, cap)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        rule: _ReluRule = ctx.seen.rule
        passed = grads[0].clamp_min(0) if rule.positive else grads[0]
        if rule.masked:
            (z,) = ctx.saved_tensors
            step = rule.step(z)
            if ctx.cap is not None:
                step = step - rule.step(z, ctx.cap)
            if isinstance(ctx.slope, Tensor) or ctx.slope:
                step = ctx.slope + (1 - ctx.slope) * step
            passed = passed * step
        return passed, None, None, None


class _Mode(TorchFunctionMode):
    """Replace every call of a rectifier by `_Rectifier` with one rule."""

    def __init__(self, rule: _ReluRule) -> None:
        super().__init__()
        self.rule, self.seen, self.recogniser = rule, Seen(rule), Recogniser()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _RULE.get() is not self.rule or not torch.is_grad_enabled():  # an inner block has its own rule, or none
            return func(*args, **kwargs)
        found = self.recogniser.find(func, args, kwargs)
        if found is None:
            if name_of(func) in OTHERS:
                self.seen.others.add(name_of(func))
            result = func(*args, **kwargs)
            self.recogniser.note(func, args, result)
            return result
        self.seen.rectifiers += 1
        z, slope, cap, in_place, scale = found
        target = (args[0] if args else z) if in_place else None
        # The caller may ignore the result of an in-place call, so its target changes; the backward pass keeps a copy.
        result = _Rectifier.apply(z.clone() if z is target else z, slope, cap, self.seen)
        result = result if scale == 1 else scale * result
        return result if target is None else target.copy_(result)


_RULE: ContextVar[_ReluRule | None] = ContextVar("relu_rule", default=None)


@contextmanager
def _relu_rule(rule: _ReluRule) -> Iterator[Seen]:
    """Apply a rule to every rectifier called inside the block; yield what was seen."""
    token = _RULE.set(rule)
    try:
        with _Mode(rule) as mode:
            try:
                yield mode.seen
            finally:
                mode.seen.rule = replace(rule, positive=False, masked=True)
    finally:
        _RULE.reset(token)


@contextmanager
def plain_relu() -> Iterator[None]:
    """Apply no rule inside the block, whatever blocks are around it: for bounds that are not a part of the network."""
    token = _RULE.set(None)
    try:
        yield
    finally:
        _RULE.reset(token)


def _smoothed_as_outside(rule: _ReluRule) -> _ReluRule:
    """Return the rule with the smoothing of the enclosing `smooth_relu` or `softplus_relu` in place of its own."""
    outer = _RULE.get()
    if outer is None or (outer.tau is None and outer.beta is None):
        return rule
    return replace(rule, tau=outer.tau, beta=outer.beta, width=None)


def capture_relu_rule(f: Callable[..., R]) -> Callable[..., R]:
    """Return `f` with the current ReLU rule bound to it, wherever it is called.

    Without it, a forward pass that is repeated in the backward pass, when the block `with smooth_relu()` has ended,
    would not follow the rule of that block.
    """
    rule = _RULE.get()

    @wraps(f)
    def with_rule(*args: Any) -> R:
        # Set the rule even if it is in force: while `torch.autograd.grad` runs, torch suspends the mode around it.
        with plain_relu() if rule is None else _relu_rule(rule):
            return f(*args)

    return with_rule


@contextmanager
def smooth_relu(tau: float = 1e-4) -> Iterator[None]:
    """Replace the unit step by the smooth step h in the backward pass of every rectifier in the block.

    The second derivative of a ReLU network is zero almost everywhere, so that gradients could not attack a map that is
    itself a gradient. The forward pass, and with it every prediction, is unchanged. The rule covers rectifiers in every
    form (see `hooks.rectifiers`), in place or not, but no custom kernels and no compiled networks.

    Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 3.2: h(z) =
    z / sqrt(z² + tau), plus 1 where z < 0.
    """
    with _relu_rule(_ReluRule(tau=tau)):
        yield


@contextmanager
def softplus_relu(beta: float) -> Iterator[None]:
    """Replace every rectifier in the block by the softplus log(1 + exp(beta z)) / beta, forward and backward.

    The network of the block has derivatives of every order; its answers differ from those of the network outside the
    more, the smaller `beta` is. Passes with gradients disabled are not changed. The rule covers rectifiers in every
    form, as that of `smooth_relu`.

    Source: Dombrowski et al., Explanations Can Be Manipulated and Geometry is to Blame, NeurIPS 2019, section 3.
    """
    with _relu_rule(_ReluRule(beta=beta)):
        yield


@contextmanager
def wide_relu(width: float = 1.0) -> Iterator[None]:
    """Give the unit step of every rectifier in the block the derivative of a smooth and wide step.

    Unlike `smooth_relu`, this changes no gradient, only the derivative of a gradient. An enclosing `smooth_relu` or
    `softplus_relu` stays in force.

    Args:
        width: of the smooth step, as a share of the root mean square of the rectifier's input for each image.
    """
    with _relu_rule(_smoothed_as_outside(_ReluRule(width=width))):
        yield


@contextmanager
def guided_relu(*, width: float | None = None) -> Iterator[Seen]:
    """Let every rectifier in the block pass back only positive values, and only where its input was positive.

    The backward pass must run inside the block. Inside `smooth_relu`, the smooth step h replaces the unit step here
    too. Source: Springenberg et al., Striving for Simplicity, ICLR Workshops 2015. Yields what was seen (see `Seen`).

    Args:
        width: give the unit step the derivative of a smooth step of this width (see `wide_relu`); None leaves it zero.
    """
    with _relu_rule(_smoothed_as_outside(_ReluRule(positive=True, width=width))) as seen:
        yield seen


@contextmanager
def deconv_relu() -> Iterator[Seen]:
    """Let every rectifier in the block pass back all positive values, whatever its input was.

    The backward pass must run inside the block.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014. Yields what was seen
    (see `Seen`).
    """
    with _relu_rule(_ReluRule(positive=True, masked=False)) as seen:
        yield seen
