"""Compute the gradient of the explained score with respect to the image, and differentiate that gradient again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underfire.attribution.scores import score
from underfire.errors import Unsupported
from underfire.hooks import bypass_cache, capture_relu_rule, frozen, twice_differentiable, wide_relu
from underfire.validate import require_finite

DOUBLE_BACKWARD = ("finite_difference", "smooth", "exact")


@contextmanager
def differentiable_input(model: nn.Module, x: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Freeze the model and yield images that require a gradient, and whether the map must carry a graph to `x`."""
    attached = torch.is_grad_enabled() and x.requires_grad
    with frozen(model), torch.enable_grad():
        yield (x if attached else x.detach().requires_grad_(True)), attached


def reduce_channels(gradient: Tensor, absolute: bool) -> Tensor:
    """Return one value for each pixel, `[B, 1, H, W]`: the largest absolute value over channels, or the signed sum."""
    return gradient.abs().amax(1, keepdim=True) if absolute else gradient.sum(1, keepdim=True)


def check_double_backward(double_backward: str, choices: Sequence[str] = DOUBLE_BACKWARD) -> None:
    """Raise Unsupported unless `double_backward` is one of the choices."""
    if double_backward not in choices:
        raise Unsupported(f"double_backward {double_backward!r} is unknown; choices: {', '.join(choices)}")


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, double_backward: str, neuron: str | None = None) -> Tensor:
    """Return the gradient of the `score`, `[B, C, H, W]`; it carries a graph where `x` requires a gradient.

    The derivative of the gradient along a vector `v` is a Hessian-vector product. `double_backward` says how it is
    computed:

    * `"exact"`: by back-propagating twice. For a ReLU network it is zero almost everywhere, unless its activations are
      smoothed (`hooks.smooth_relu`).
    * `"smooth"`: by back-propagating twice, with the derivative of every ReLU's step replaced by that of a smooth and
      wide step (`hooks.wide_relu`).
    * `"finite_difference"`: as `(g(x + d v) - g(x)) / d`, with the gradient `g` and a `d` that is large enough to cross
      the kinks of the activations. This costs one more gradient, about half the time and memory of the others.

    Raises:
        ModelError: the gradient is NaN or infinite. Unsupported: `double_backward` is unknown.
    """
    check_double_backward(double_backward)
    if double_backward == "smooth":
        with wide_relu(), bypass_cache(model):  # a pass that `shared_forward` remembers would not follow the rule
            return require_finite(backward_to_input(model, x, y, neuron, twice=True))
    exact = double_backward == "exact"
    gradient = require_finite(backward_to_input(model, x, y, neuron, twice=exact))
    if exact or not (torch.is_grad_enabled() and x.requires_grad):
        return gradient

    def gradient_at(point: Tensor) -> Tensor:
        with bypass_cache(model):
            return backward_to_input(model, point.detach(), y, neuron)

    return cast(Tensor, _FiniteDifference.apply(x, gradient, capture_relu_rule(gradient_at)))


def backward_to_input(
    model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None, *, twice: bool = False
) -> Tensor:
    """Back-propagate the `score` to the image and return the result, `[B, C, H, W]`, not checked for NaN.

    Under a ReLU rule (`hooks.guided_relu`, `hooks.deconv_relu`), the result is not a gradient.

    Args:
        neuron: see `score`.
        twice: whether the result carries a graph, if `x` requires a gradient.

    Raises:
        ModelError: the score is NaN.
    """
    fused = twice_differentiable() if twice and torch.is_grad_enabled() and x.requires_grad else nullcontext()
    with differentiable_input(model, x) as (point, attached), fused:
        total = require_finite(score(model, point, y, neuron), "the model's answer").sum()
        # Keep the graph where other calls may share this forward pass (see `hooks.shared_forward`).
        (gradient,) = torch.autograd.grad(total, point, create_graph=twice and attached, retain_graph=attached)
        # Where the result does not depend on the image, its derivative is zero rather than missing.
        return gradient + 0 * point if twice and attached and not gradient.requires_grad else gradient


class _FiniteDifference(torch.autograd.Function):
    """A gradient, already computed, whose own derivative is a difference of two gradients.

    This is right only for the gradient of a function, because only its Jacobian is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, gradient_at: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.gradient_at = gradient_at
        return gradient.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, gradient = ctx.saved_tensors
        shift, d = wide_shift(grads[0])
        return (ctx.gradient_at(x + shift) - gradient) / d, None, None


def wide_shift(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return `d v` `[B, C, H, W]` and `d` `[B, 1, 1, 1]` for a difference of gradients along `v`.

    The root mean square of `d v` is 0.01, about two and a half grey levels: large enough to cross the kinks of the
    activations, small against the `eps` of an attack. Where `v` is zero, `d v` is zero and `d` is infinite. For half
    precision, `d` is float32, so that it does not overflow.
    """
    dtype = v.dtype
    v = v.float() if dtype in (torch.float16, torch.bfloat16) else v
    largest = v.abs().amax((1, 2, 3), keepdim=True)
    nonzero = largest > 0
    unit = v / torch.where(nonzero, largest, torch.ones_like(largest))  # the squares of a small v would underflow
    length = unit.square().mean((1, 2, 3), keepdim=True).sqrt()
    d = 1e-2 / torch.where(nonzero, length, torch.ones_like(length))
    return (d * unit).to(dtype), torch.where(nonzero, d / largest, torch.inf)
