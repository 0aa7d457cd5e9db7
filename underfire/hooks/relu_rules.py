"""Change rectifiers, in the backward pass (smooth and wide steps, guided, deconvolution) or in both (softplus)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from underfire.errors import Unsupported
from underfire.hooks.rectifiers import OTHERS, Recogniser, name_of
from underfire.hooks.relu_derivatives import ReluRule

R = TypeVar("R")


class Seen:
    """What the calls inside a block computed, and the rule for their backward pass.

    Attributes:
        rule: the rule; after the block, a rectifier passes back as usual (`tau` and `width` stay), so that the
            derivative of a map that was computed in the block is right.
        rectifiers: the number of rectifiers.
        others: the names of other activations.
    """

    def __init__(self, rule: ReluRule) -> None:
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
        rule: ReluRule = ctx.seen.rule
        passed = grads[0].clamp_min(0) if rule.positive else grads[0]
        if rule.masked:
            (z,) = ctx.saved_tensors
            step = rule.step(z, ctx.cap)
            if isinstance(ctx.slope, Tensor) or ctx.slope:
                step = ctx.slope + (1 - ctx.slope) * step
            passed = passed * step
        return passed, None, None, None


class _Mode(TorchFunctionMode):
    """Replace every call of a rectifier by `_Rectifier` with one rule."""

    def __init__(self, rule: ReluRule) -> None:
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


_RULE: ContextVar[ReluRule | None] = ContextVar("relu_rule", default=None)


@contextmanager
def _relu_rule(rule: ReluRule) -> Iterator[Seen]:
    """Apply a rule to every rectifier called inside the block; yield what was seen."""
    token = _RULE.set(rule)
    try:
        with _Mode(rule) as mode:
            try:
                yield mode.seen
            finally:
                mode.seen.rule = replace(rule, positive=False, masked=True, secant=False)
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


def _smoothed_as_outside(rule: ReluRule) -> ReluRule:
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
    with _relu_rule(ReluRule(tau=tau)):
        yield


@contextmanager
def softplus_relu(beta: float) -> Iterator[None]:
    """Replace every rectifier in the block by the softplus log(1 + exp(beta z)) / beta, forward and backward.

    The network of the block has derivatives of every order; its outputs differ from the outputs of the network outside
    the more, the smaller `beta` is. Passes with gradients disabled are not changed. The rule covers rectifiers in every
    form, as that of `smooth_relu`.

    Source: Dombrowski et al., Explanations Can Be Manipulated and Geometry is to Blame, NeurIPS 2019, section 3.
    """
    with _relu_rule(ReluRule(beta=beta)):
        yield


@contextmanager
def wide_relu(width: float = 1.0) -> Iterator[None]:
    """Give the unit step of every rectifier in the block the derivative of a smooth and wide step.

    Unlike `smooth_relu`, this changes no gradient, only the derivative of a gradient. An enclosing `smooth_relu` or
    `softplus_relu` stays in force.

    Args:
        width: of the smooth step, as a share of the root mean square of the rectifier's input for each image.
    """
    with _relu_rule(_smoothed_as_outside(ReluRule(width=width))):
        yield


@contextmanager
def guided_relu(*, width: float | None = None) -> Iterator[Seen]:
    """Let every rectifier in the block pass back only positive values, and only where its input was positive.

    The backward pass must run inside the block. Inside `smooth_relu`, the smooth step h replaces the unit step here
    too. Source: Springenberg et al., Striving for Simplicity, ICLR Workshops 2015. Yields what was seen (see `Seen`).

    Args:
        width: give the unit step the derivative of a smooth step of this width (see `wide_relu`); None leaves it zero.
    """
    with _relu_rule(_smoothed_as_outside(ReluRule(positive=True, width=width))) as seen:
        yield seen


@contextmanager
def secant_relu(*, width: float | None = None) -> Iterator[Seen]:
    """Let every rectifier in the block pass back its output over its input, so that both have the same relevance.

    That differs from the gradient beyond a cap only. The backward pass must run inside the block. Inside `smooth_relu`,
    the smooth step h replaces the unit step. Yields what was seen (see `Seen`).

    Args:
        width: give the unit step the derivative of a smooth step of this width (see `wide_relu`); None leaves it zero.
    """
    with _relu_rule(_smoothed_as_outside(ReluRule(secant=True, width=width))) as seen:
        yield seen


@contextmanager
def deconv_relu() -> Iterator[Seen]:
    """Let every rectifier in the block pass back all positive values, whatever its input was.

    The backward pass must run inside the block.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014. Yields what was seen
    (see `Seen`).
    """
    with _relu_rule(ReluRule(positive=True, masked=False)) as seen:
        yield seen
