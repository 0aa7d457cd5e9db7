"""SmoothGrad (Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017), around any interpreter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, chunk_within, sum_in_chunks
from underfire.attribution.scores import check_classes, default_generator, reduce_channels
from underfire.catalog import Card, InterpreterFacts, card, facts_of, find
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache

Interpreter = Callable[[nn.Module, Tensor, Tensor], Tensor]


@card(
    "interpreter",
    paper="Smilkov, Thorat, Kim, Viégas and Wattenberg, SmoothGrad: Removing Noise by Adding Noise, 2017",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def smooth_grad(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: str | Interpreter = "gradient",
    samples: int = 50,
    noise: float = 0.15,
    squared: bool = False,
    absolute: bool = True,
    neuron: str | None = None,
    double_backward: str | None = None,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """The mean map of an image under Gaussian noise, of any method that gives maps.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        interpreter: the name of a method: one that joins its channels in the end, such as `"gradient"`, is averaged
            before that, as in the paper; or a callable `(model, x, y) -> [B, 1, h, w]`, whose maps are averaged as they
            are.
        samples: noisy copies of each image; the paper's authors see little gain past 50.
        noise: its standard deviation, as a share of each image's largest less its smallest value; in the paper 0.1 to
            0.2. Noisy images are not cut off at the box.
        squared: average the squares (SmoothGrad-Squared; Hooker et al., A Benchmark for Interpretability Methods,
            NeurIPS 2019).
        absolute: how averaged channels are joined: the largest absolute value, or the sum.
        neuron: explain this inner neuron instead, where the method can (see `parts.score`).
        double_backward: how a map that is itself a gradient is differentiated, where the method can; None is its own.
        generator: the source of the noise, which all images share; None draws the same every time.
        chunk: how many noisy copies go through the model at once; None is as many as `memory` allows.
        memory: for what the layers put out, in MiB; a method that bends rectifiers, such as `"guided_backprop"`, takes
            up to twice as much.

    Returns:
        The map, `[B, 1, h, w]`, in what the method gives, or its square.

    Raises:
        InputError: an option is wrong. Unsupported: the method has no such option, or gives no map.
    """
    if samples < 1 or noise < 0:
        raise InputError(f"samples must be at least 1 and noise not negative, got {samples} and {noise:g}")
    check_classes(x, y)
    apart, explain = _resolved(interpreter, {"neuron": neuron, "double_backward": double_backward})
    facts = facts_of(explain, InterpreterFacts(differentiable=True, second_order=True))
    attached = torch.is_grad_enabled() and x.requires_grad and facts.differentiable
    if not attached:
        x = x.detach()
    lots = default_generator(generator, x.device)
    draws = torch.randn(samples, *x.shape[1:], generator=lots, device=lots.device, dtype=x.dtype).to(x.device)
    sigma = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))

    def noisy(image: Tensor, sample: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        with bypass_cache(model):  # also when the pass is made again on the way back
            shown = explain(model, x[image] + sigma[image] * draws[sample], y[image])
        return (shown.square() if squared else shown) / samples

    twice = attached and facts.second_order
    at_once = chunk_within(model, x, memory, gradients=True, twice=twice) if chunk is None else chunk
    mean = sum_in_chunks(noisy, samples, at_once, x, sigma)
    return reduce_channels(mean, absolute) if apart else mean


def _resolved(interpreter: str | Interpreter, options: dict[str, Any]) -> tuple[bool, Interpreter]:
    """Whether the channels come apart, and the method with those of the options bound that are given."""
    method = find("interpreter", interpreter) if isinstance(interpreter, str) else interpreter
    known = method.options if isinstance(method, Card) else inspect.signature(method).parameters
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - known.keys():
        raise Unsupported(f"interpreter {interpreter!r} has no option {name!r}")
    if (gives := facts_of(method, InterpreterFacts()).gives) != "map":
        raise Unsupported(f"interpreter {interpreter!r} gives {gives}, which have no mean; choose one that gives a map")
    apart = isinstance(interpreter, str) and "channels" in known
    bound = given | {"channels": True} if apart else given
    return apart, partial(method, **bound) if bound else method
