"""What several interpreters share: the score that is explained, its gradient, and chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underfire.errors import DataError, InputError, ModelError, Unsupported
from underfire.hooks import (
    activations,
    as_maps,
    bypass_cache,
    capture_relu_rule,
    frozen,
    twice_differentiable,
    wide_relu,
)

DOUBLE_BACKWARD = ("finite_difference", "smooth", "exact")


def default_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """The generator, or one that always begins alike: without one, an explanation is the same every time.

    What is drawn is shared by all images of a batch, so that each gets the explanation it would get alone.
    """
    return generator if generator is not None else torch.Generator(device).manual_seed(0)


def check_classes(x: Tensor, y: Tensor) -> None:
    """Raise DataError unless there is one class int64 for each of the images `x` `[B, ...]`, on their device."""
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise DataError(f"classes to explain must be int64 [{len(x)}], got {y.dtype} {tuple(y.shape)}")
    if y.device != x.device:
        raise DataError(f"classes to explain are on {y.device}, but the images on {x.device}; move them there")


def class_score(logits: Tensor, y: Tensor) -> Tensor:
    """The logit of class `y` of every sample, `[B]`.

    Raises:
        DataError: `y` does not fit the logits.
    """
    check_classes(logits, y)
    least, most = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    if least < 0 or most >= logits.shape[1]:
        raise DataError(f"class {least if least < 0 else most} is outside the model's {logits.shape[1]} classes")
    return logits.gather(1, y[:, None]).squeeze(1)


def score(model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None) -> Tensor:
    """What is explained, `[B]`: the logit of class `y`, or the activation of an inner neuron.

    Args:
        model: maps images to logits `[B, K]`.
        x: images.
        y: classes, int64 `[B]`; without effect where a neuron is given, but still checked.
        neuron: `"LAYER:UNIT"`, such as `"layer2.0:5"`: of a layer with space the mean of channel 5 over it, and with
            `"LAYER:UNIT,ROW,COLUMN"` one place of it, also of channels last and of tokens, see `hooks.space_of`; of a
            layer `[B, D]` its unit 5.

    Raises:
        InputError: the neuron is not written so, or outside the layer. ModelError: there is no such layer, or it has
            no places. Unsupported: what the layer gives is of no known kind.
    """
    if neuron is None:
        return class_score(model(x), y)
    name, colon, numbers = neuron.rpartition(":")
    place = tuple(int(part) for part in numbers.split(",") if part.strip().isdecimal())
    if not colon or len(place) not in (1, 3) or len(place) != len(numbers.split(",")):
        raise InputError(f"neuron must be LAYER:UNIT or LAYER:UNIT,ROW,COLUMN, such as 'layer2.0:5', got {neuron!r}")
    logits, outputs = activations(model, x, [name])
    class_score(logits, y)
    output = as_maps(model, x, name, outputs[name])
    if len(place) == 3 and output.dim() == 2:
        raise ModelError(f"neuron {neuron!r}: layer {name!r} gives {tuple(output.shape)}, which has no such place")
    if any(i >= n for i, n in zip(place, output.shape[1:], strict=False)):
        raise InputError(f"neuron {neuron!r} is outside layer {name!r}, which gives {tuple(output.shape[1:])} an image")
    chosen = output[:, place[0]]
    if len(place) == 3:
        return chosen[:, place[1], place[2]]
    return chosen.mean((1, 2)) if chosen.dim() == 3 else chosen


@contextmanager
def differentiable_input(model: nn.Module, x: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Yield the images to explain and whether their map must carry a graph; gradients work inside in any case."""
    attached = torch.is_grad_enabled() and x.requires_grad
    with frozen(model), torch.enable_grad():
        yield (x if attached else x.detach().requires_grad_(True)), attached


def require_finite(values: Tensor, what: str = "the model's gradient") -> Tensor:
    """The model's gradient, or something else `[B, ...]` of each image, as it is.

    Raises:
        ModelError: it is NaN or infinite for some images.
    """
    if not bool(torch.isfinite(values.sum())):  # one number says that all is well
        for word, wrong in (("NaN", torch.isnan), ("infinite", torch.isinf)):
            if bad := int(wrong(values).reshape(len(values), -1).any(1).sum()):
                raise ModelError(f"{what} is {word} for {bad} of {len(values)} images")
    return values


def reduce_channels(gradient: Tensor, absolute: bool) -> Tensor:
    """One value a pixel, `[B, 1, H, W]`: the largest absolute value of a channel, or the signed sum over channels."""
    return gradient.abs().amax(1, keepdim=True) if absolute else gradient.sum(1, keepdim=True)


def check_double_backward(double_backward: str, choices: Sequence[str] = DOUBLE_BACKWARD) -> None:
    """Raise Unsupported unless the double_backward is one of the choices."""
    if double_backward not in choices:
        raise Unsupported(f"double_backward {double_backward!r} is unknown; choices: {', '.join(choices)}")


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, double_backward: str, neuron: str | None = None) -> Tensor:
    """The gradient of the `score`, `[B, C, H, W]`, itself differentiable where `x` requires a gradient.

    Its derivative along a vector `v` is a Hessian-vector product: `"exact"`, by back-propagating twice, which is zero
    for a ReLU network unless its activations are smoothed; `"smooth"`, likewise, but as if the steps of ReLUs were
    smooth and wide (`hooks.wide_relu`); or `"finite_difference"`, `(g(x + d v) - g(x)) / d`, one more gradient
    with a `d` wide enough to see the kinks of the activations, about half the time and memory of the others.

    Raises:
        ModelError: the gradient is NaN or infinite. Unsupported: there is no such double_backward.
    """
    check_double_backward(double_backward)
    if double_backward == "smooth":
        with wide_relu(), bypass_cache(model):  # a pass shared with others would not be bent
            return require_finite(back_propagated(model, x, y, neuron, twice=True))
    gradient = require_finite(back_propagated(model, x, y, neuron, twice=double_backward == "exact"))
    if double_backward == "exact" or not (torch.is_grad_enabled() and x.requires_grad):
        return gradient

    def again(elsewhere: Tensor) -> Tensor:
        with bypass_cache(model):
            return back_propagated(model, elsewhere.detach(), y, neuron)

    return cast(Tensor, _Difference.apply(x, gradient, capture_relu_rule(again)))


def back_propagated(
    model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None, *, twice: bool = False
) -> Tensor:
    """What the way back from the `score` brings to the image, `[B, C, H, W]`, not checked.

    Args:
        model: the model.
        x: images.
        y: classes.
        neuron: see `score`.
        twice: whether the way back is itself in the graph, where `x` requires a gradient.

    Raises:
        ModelError: the score is NaN.
    """
    with (
        differentiable_input(model, x) as (point, attached),
        twice_differentiable() if twice and attached else nullcontext(),
    ):
        total = require_finite(score(model, point, y, neuron), "the model's answer").sum()
        # The graph stays where others may share this pass.
        (gradient,) = torch.autograd.grad(total, point, create_graph=twice and attached, retain_graph=attached)
        # Where nothing on the way depends on the image, its derivative is zero rather than missing.
        return gradient + 0 * point if twice and attached and not gradient.requires_grad else gradient


class _Difference(torch.autograd.Function):
    """A known gradient whose own derivative is taken by a difference of gradients.

    Right for what is the gradient of something, because only then is its Jacobian symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, again: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.again = again
        return gradient.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, gradient = ctx.saved_tensors
        v = grads[0]
        shift, d = wide_shift(v)
        return (ctx.again(x + shift) - gradient) / d, None, None


def wide_shift(v: Tensor) -> tuple[Tensor, Tensor]:
    """`d v` and `d` for a difference of gradients along `v`, `[B, C, H, W]` and `[B, 1, 1, 1]`.

    Its root mean square is about two and a half grey levels: wide enough to cross kinks, narrow against the eps of an
    attack. Where `v` is zero the shift is too, and `d` is infinite. For half precision `d` is in single, where it does
    not overflow.
    """
    dtype = v.dtype
    v = v.float() if dtype in (torch.float16, torch.bfloat16) else v
    largest = v.abs().amax((1, 2, 3), keepdim=True)
    moves = largest > 0
    unit = v / torch.where(moves, largest, torch.ones_like(largest))  # the squares of a small v would underflow
    length = unit.square().mean((1, 2, 3), keepdim=True).sqrt()
    d = 1e-2 / torch.where(moves, length, torch.ones_like(length))
    return (d * unit).to(dtype), torch.where(moves, d / largest, torch.inf)
