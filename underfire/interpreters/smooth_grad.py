"""SmoothGrad (Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017), around any interpreter."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, resolve_chunk, sum_in_chunks
from underfire.attribution.gradients import reduce_channels
from underfire.attribution.scores import check_y
from underfire.attribution.variants import Interpreter
from underfire.catalog import Card, InterpreterFacts, card, facts_of, find
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache
from underfire.validate import default_generator


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
    """Average the maps of noisy copies of an image, by any method that gives maps.

    Args:
        interpreter: the name of a method, or a callable `(model, x, y) -> [B, 1, h, w]`. The maps of a named method
            with the option `channels`, such as `"gradient"`, are averaged before their channels are joined, as in the
            paper.
        samples: noisy copies of each image; all images share the noise. The authors see little gain above 50.
        noise: standard deviation of the noise as a share of the image's range, 0.1 to 0.2 in the paper; noisy images
            are not clipped to the box.
        squared: average the squares (SmoothGrad-Squared; Hooker et al., A Benchmark for Interpretability Methods,
            NeurIPS 2019).
        neuron: passed to the method, which must have this option; None passes nothing.
        double_backward: passed to the method, which must have this option; None is the method's default.
        memory: MiB for one chunk; a method with ReLU rules, such as `"guided_backprop"`, takes up to twice as much.

    Returns:
        The map, `[B, 1, h, w]`, in the unit of the method, or its square.

    Raises:
        InputError: an option is wrong. Unsupported: the method has no such option, or gives no map.
    """
    if samples < 1 or noise < 0:
        raise InputError(f"samples must be at least 1 and noise not negative, got {samples} and {noise:g}")
    check_y(x, y)
    # bind the method's options
    separate, explain = _resolved(interpreter, {"neuron": neuron, "double_backward": double_backward})
    facts = facts_of(explain, InterpreterFacts(differentiable=True, second_order=True))
    attached = torch.is_grad_enabled() and x.requires_grad and facts.differentiable
    if not attached:
        x = x.detach()
    # draw the noise, in one dtype for all images
    source = default_generator(generator, x.device)
    draws = torch.randn(samples, *x.shape[1:], generator=source, device=source.device, dtype=torch.float32).to(x)
    sigma = noise * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))

    def noisy(image: Tensor, sample: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        with bypass_cache(model):  # also when this pass is repeated in the backward pass
            heat = explain(model, x[image] + sigma[image] * draws[sample], y[image])
        return (heat.square() if squared else heat) / samples

    twice = attached and facts.second_order
    chunk_size = resolve_chunk(model, x, chunk, memory, gradients=True, twice=twice)
    # average over the noisy copies
    mean = sum_in_chunks(noisy, samples, chunk_size, x, sigma)
    return reduce_channels(mean, absolute) if separate else mean


def _resolved(interpreter: str | Interpreter, options: dict[str, Any]) -> tuple[bool, Interpreter]:
    """Return whether maps are averaged before their channels are joined, and the method with its options bound."""
    method = find("interpreter", interpreter) if isinstance(interpreter, str) else interpreter
    known = method.options if isinstance(method, Card) else inspect.signature(method).parameters
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - known.keys():
        raise Unsupported(f"interpreter {interpreter!r} has no option {name!r}")
    if (gives := facts_of(method, InterpreterFacts()).gives) != "map":
        raise Unsupported(f"interpreter {interpreter!r} gives {gives}, which have no mean; choose one that gives a map")
    separate = isinstance(interpreter, str) and "channels" in known
    bound = given | {"channels": True} if separate else given
    return separate, partial(method, **bound) if bound else method
