"""Write a logit as the sum of a term for the image and a term for every bias: the full gradient of a network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from underfire.attribution.gradients import differentiable_input
from underfire.attribution.scores import score
from underfire.errors import Unsupported
from underfire.hooks import (
    Entrance,
    ModifiedGradients,
    bypass_cache,
    normalised,
    twice_differentiable,
    varies,
    wide_relu,
)
from underfire.hooks.rectifiers import OTHERS, Recogniser
from underfire.validate import require_finite

_WEIGHTED = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("mul", "multiply", "__mul__", "__rmul__")
Term = list[tuple[Tensor, GradientEdge]]
"""Tensors and places in the graph; the term is the sum of the tensors times the gradients at these places."""


class FullGradient(NamedTuple):
    """The terms of a logit, which sum to it.

    Attributes:
        logit: `[B]`.
        of_image: the term of the image, `[B, C, H, W]`.
        of_biases: the terms of all biases, each with one entry for each place of what the bias is added to.
        of_maps: those of feature maps `[B, C, h, w]` among them.
    """

    logit: Tensor
    of_image: Tensor
    of_biases: list[Tensor]
    of_maps: list[Tensor]

    def total(self) -> Tensor:
        """Return the sum of all terms, `[B]`."""
        n = len(self.logit)
        return sum((t.reshape(n, -1).sum(1) for t in self.of_biases), self.of_image.reshape(n, -1).sum(1))


class BiasTerms(ModifiedGradients):
    """Note every bias inside the block: those of layers, and those that a nonlinear operation has at its input.

    A batch norm has the bias `β - μ γ / σ`. A function f of single entries, or a normalisation, equals its derivative
    times its input plus what is left, which is a bias too; for a ReLU nothing is left, for a capped one its cap.
    Of a product of two features, the product itself is left, negative.

    Attributes:
        terms: one for each bias.
        maps: the shapes of feature maps that have the channels first.
    """

    def __init__(self, entrance: Entrance, *, attached: bool) -> None:
        super().__init__(attached=attached)
        self.entrance, self.terms, self._recogniser = entrance, list[Term](), Recogniser()
        self.maps = set[torch.Size]()

    def rename(self, before: Tensor, after: Tensor) -> None:
        """Note that `after` has the values of `before`."""
        self.entrance.rename(before, after)

    def call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call, and note its bias."""
        args, kwargs = self.entrance.enter(name, args, kwargs)
        result = self._noted(name, func, args, kwargs)
        self.entrance.note(name, func, args, kwargs, result)
        self._recogniser.note(func, args, result)
        return result

    def _noted(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = self._recogniser.find(func, args, kwargs)
        tensors = [t for t in (*args, *kwargs.values()) if varies(t)]
        if not tensors or (found is not None and found.cap is None):
            return func(*args, **kwargs)
        z = tensors[0]
        if found is not None or name in OTHERS or normalised(name, args, kwargs) is not None:
            alias = z.view_as(z)
            place = get_gradient_edge(alias)
            result = func(*(alias if t is z else t for t in args), **kwargs)
            self.terms.append([(result, get_gradient_edge(result)), (-z, place)])
            return result.clone()  # a later operation in place must not overwrite what is noted
        result = func(*args, **kwargs)
        if name in _PRODUCTS and len(tensors) == 2:
            self.terms.append([(-result, get_gradient_edge(result))])
        elif name in _WEIGHTED or name == "batch_norm":
            self.seen += 1
            if name != "linear" and result.dim() == 4:
                self.maps.add(result.shape)
            bias = _bias_of(name, args, kwargs)
            if bias is not None:
                last = result.dim() - 1 if name == "linear" else 1
                shape = [-1 if i == last else 1 for i in range(result.dim())]
                self.terms.append([(bias.view(shape), get_gradient_edge(result))])
        return result


def _bias_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the bias of a convolution or linear layer, or of a batch norm with stored statistics, by channel."""
    if name != "batch_norm":
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        return bias if isinstance(bias, Tensor) else None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, args, strict=False)) | kwargs
    if given["running_mean"] is None or given.get("training"):
        return None
    factor = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
    factor = factor if given.get("weight") is None else factor * given["weight"]
    shift = -given["running_mean"] * factor
    return shift if given.get("bias") is None else shift + given["bias"]


def full_gradient(
    model: nn.Module, x: Tensor, y: Tensor, neuron: str | None = None, *, smooth: bool = False
) -> FullGradient:
    """Return the logit of class `y` as a term of the image and a term of every bias.

    All terms sum to the logit for networks of convolutions, linear layers, activations, pools, sums, normalisation and
    gates; products of matrices, as in attention, are not counted.

    Args:
        neuron: see `attribution.scores.score`.
        smooth: give the step of every ReLU the derivative of a smooth and wide step (see `hooks.wide_relu`).

    Raises:
        ModelError: a term is NaN. Unsupported: no layer can be seen.
    """
    with differentiable_input(model, x) as (point, attached), bypass_cache(model):
        entrance = Entrance(point)
        twice = twice_differentiable() if attached else nullcontext()
        with twice, wide_relu() if smooth else nullcontext(), BiasTerms(entrance, attached=attached) as block:
            logit = require_finite(score(model, point, y, neuron), "the model's output")
        if not block.seen:
            raise Unsupported("full_grad needs layers that can be seen, and this model has none; use gradient_input")
        inputs = [(entered.x, get_gradient_edge(entered.x)) for entered in entrance.found]
        flat = [pair for term in ([pair] for pair in inputs) for pair in term] + [p for t in block.terms for p in t]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            logit.sum(), [place for _, place in flat], create_graph=attached, allow_unused=True, retain_graph=attached
        )
        parts = iter([None if g is None else t * g for (t, _), g in zip(flat, found, strict=True)])
        of_image = sum((p for p in (next(parts) for _ in inputs) if p is not None), torch.zeros_like(point))
        of_biases = []
        for term in block.terms:
            counted = [p for p in (next(parts) for _ in term) if p is not None]
            if counted:
                of_biases.append(_difference(*counted) if len(counted) == 2 else counted[0])
    return FullGradient(logit, of_image, of_biases, [t for t in of_biases if t.shape in block.maps])


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of two numbers of opposite sign, and zero where it is nothing but rounding."""
    total = one + other
    rounding = 16 * torch.finfo(total.dtype).eps * (one.abs() + other.abs())
    return total * (total.abs() > rounding)
