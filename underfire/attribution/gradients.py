"""Compute the gradient of the explained score with respect to the image, and differentiate that gradient again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underfire.attribution.scores import score
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache, capture_relu_rule, frozen, hides_functions, twice_differentiable, wide_relu
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


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, double_backward: str, neuron: str | None = None, output: str = "logit"
) -> Tensor:
    """Return the gradient of the `score`, `[B, C, H, W]`; it carries a graph where `x` requires a gradient.

    The derivative of the gradient along a vector `v` is a Hessian-vector product. `double_backward` says how it is
    computed:

    * `"exact"`: by back-propagating twice. For a ReLU network it is zero almost everywhere, unless its activations are
      smoothed (`hooks.smooth_relu`).
    * `"smooth"`: by back-propagating twice, with the derivative of every ReLU's step replaced by that of a smooth and
      wide step (`hooks.wide_relu`). In a compiled network, whose rectifiers cannot be replaced, it is a finite
      difference.
    * `"finite_difference"`: as `(g(x + d v) - g(x)) / d`, with the gradient `g` and a `d` that is large enough to cross
      the kinks of the activations. This costs one more gradient, about half the time and memory of the others. On
      photographs, ADV² with `"smooth"` reduces the map loss several times as much in the same number of steps; on small
      images, the two reduce it about equally (`python -m benchmarks adv2-derivative`).

    Raises:
        ModelError: the gradient is NaN or infinite. Unsupported: `double_backward` is unknown.
    """
    check_double_backward(double_backward)
    if double_backward == "smooth" and not hides_functions(model):
        with wide_relu(), bypass_cache(model):  # a pass that `shared_forward` remembers would not follow the rule
            return require_finite(backward_to_input(model, x, y, neuron, output, twice=True))
    exact = double_backward == "exact"
    gradient = require_finite(backward_to_input(model, x, y, neuron, output, twice=exact))
    if exact or not (torch.is_grad_enabled() and x.requires_grad):
        return gradient

    def gradient_at(point: Tensor) -> Tensor:
        with bypass_cache(model):
            return backward_to_input(model, point.detach(), y, neuron, output)

    return cast(Tensor, _FiniteDifference.apply(x, gradient, capture_relu_rule(gradient_at)))


def backward_to_input(
    model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None, output: str = "logit", *, twice: bool = False
) -> Tensor:
    """Back-propagate the `score` to the image and return the result, `[B, C, H, W]`, not checked for NaN.

    Under a ReLU rule (`hooks.guided_relu`, `hooks.deconv_relu`), the result is not a gradient.

    Args:
        neuron: as in `score`.
        output: as in `score`.
        twice: whether the result carries a graph, if `x` requires a gradient.

    Raises:
        ModelError: the score is NaN.
    """
    fused = twice_differentiable() if twice and torch.is_grad_enabled() and x.requires_grad else nullcontext()
    with differentiable_input(model, x) as (point, attached), fused:
        total = require_finite(score(model, point, y, neuron, output), "the model's output").sum()
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


Sums = tuple[Tensor, ...]
"""Sums over the points of a mean, one for each input and shaped like it."""


def mean_gradient(
    first: Callable[..., tuple[Tensor, Sums]],
    again: Callable[..., Sums],
    move: Callable[..., Sequence[Tensor]],
    *inputs: Tensor,
) -> Tensor:
    """Return the mean gradient over points that are affine in the inputs; its derivative is a difference of gradients.

    The gradients at all points are summed before the difference is taken, so no gradient is computed a third time.

    Args:
        first: maps the inputs to the mean, `[B, C, H, W]`, and to what `again` returns for the same inputs.
        again: maps the inputs to the sums of the gradients, each pulled back to the inputs.
        move: maps `(shift, *inputs)` to the inputs for which every point is shifted by `shift`.
        inputs: the tensors with respect to which the mean can be differentiated.
    """
    return cast(Tensor, _MeanGradient.apply(capture_relu_rule(first), capture_relu_rule(again), move, *inputs))


class _MeanGradient(torch.autograd.Function):
    """A mean of gradients whose derivative is a finite difference: all points are shifted by the same vector."""

    @staticmethod
    def forward(ctx: Any, first: Any, again: Any, move: Any, *inputs: Tensor) -> Tensor:
        mean, sums = first(*inputs)
        ctx.save_for_backward(*inputs, *sums)
        ctx.again, ctx.move = again, move
        return cast(Tensor, mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        half = len(ctx.saved_tensors) // 2
        inputs, before = ctx.saved_tensors[:half], ctx.saved_tensors[half:]
        shift, d = wide_shift(grads[0])
        after = ctx.again(*ctx.move(shift, *inputs))
        return None, None, None, *((one - other) / d for one, other in zip(after, before, strict=True))


def drawn_points(total: int, few: int | None, x: Tensor) -> Tensor:
    """Return `few` of `total` points, int64 `[few]`, evenly spaced from a random first one; None is all points.

    Every point is drawn with the same probability, so that a sum over the drawn points, times `total / few`, has the
    sum over all points as its expectation. The images `x` seed the draw: the same images get the same points, and
    every step of an attack, which changes them, gets others.

    Raises:
        InputError: `few` is not in 1 … total.
    """
    if few is None:
        return torch.arange(total, device=x.device)
    if not 1 <= few <= total:
        raise InputError(f"the derivative needs 1 … {total} of the {total} points, got {few}")
    bits = int(x.detach().double().sum().cpu().view(torch.int64))
    first = torch.randint(total, (), generator=torch.Generator().manual_seed(bits % 2**63))
    return ((first + torch.arange(few) * total // few) % total).to(x.device)


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
