"""SmoothGrad (Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017), around any interpreter."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, resolve_chunk, sum_in_chunks
from underfire.attribution.gradients import Sums, backward_to_input, drawn_points, mean_gradient, reduce_channels
from underfire.attribution.scores import check_y
from underfire.attribution.variants import Interpreter
from underfire.catalog import Card, InterpreterFacts, card, facts_of, find
from underfire.errors import InputError, Unsupported
from underfire.hooks import bypass_cache, folded, frozen
from underfire.validate import default_generator, require_finite


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
    derivative_samples: int | None = None,
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
        derivative_samples: for how many of the copies the map of the method `"gradient"` is differentiated by finite
            differences, others in every step of an attack; the derivative is right in expectation and costs less. None
            is all copies.
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

    # the mean of gradients is differentiated as a whole, without a third gradient of every copy
    plain = interpreter == "gradient" and double_backward in (None, "finite_difference") and not squared
    if derivative_samples is not None and not plain:
        raise Unsupported("derivative_samples needs the method 'gradient', finite differences, and no squares")
    if attached and plain:
        few = drawn_points(samples, derivative_samples, x)
        return reduce_channels(_mean_gradient(model, x, sigma, y, draws, few, neuron, chunk, memory), absolute)
    twice = attached and facts.second_order
    chunk_size = resolve_chunk(model, x, chunk, memory, gradients=True, twice=twice)
    # average over the noisy copies
    mean = sum_in_chunks(noisy, samples, chunk_size, x, sigma)
    return reduce_channels(mean, absolute) if separate else mean


def _mean_gradient(
    model: nn.Module,
    x: Tensor,
    sigma: Tensor,
    y: Tensor,
    draws: Tensor,
    few: Tensor,
    neuron: str | None,
    chunk: int | None,
    memory: float,
) -> Tensor:
    """Return the mean gradient of noisy copies, `[B, C, H, W]`, whose derivative is taken for a `few` copies.

    Args:
        sigma: standard deviation of the noise, `[B, 1, 1, 1]`.
        draws: the noise, `[samples, C, H, W]`.
        few: the copies for which the mean is differentiated, int64.
    """
    samples = len(draws)
    chunk_size = resolve_chunk(model, x, chunk, memory, gradients=True)
    size = x.shape[1:].numel()

    def sums(x: Tensor, sigma: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Return, for each column of weights, the sums of gradients and of their products with the noise."""

        def gradients(image: Tensor, number: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
            sample = chosen[number]
            with bypass_cache(model):
                g = backward_to_input(model, x[image] + sigma[image] * draws[sample], y[image], neuron).flatten(1)
            along = torch.cat([g, (g * draws[sample].flatten(1)).sum(1, keepdim=True)], 1)
            return weights[sample].unsqueeze(2) * along.unsqueeze(1)

        with frozen(model), nullcontext() if neuron is not None else folded(model, x):
            return sum_in_chunks(gradients, len(chosen), chunk_size, x, sigma)

    def split(found: Tensor) -> Sums:
        return found[:, :size].view_as(x), found[:, size:].view_as(sigma)

    of_few = draws.new_zeros(samples, 1).index_fill(0, few, 1 / len(few))

    def first(x: Tensor, sigma: Tensor) -> tuple[Tensor, Sums]:
        weights = torch.cat([torch.full_like(of_few, 1 / samples), of_few], 1)
        whole, part = sums(x, sigma, weights, torch.arange(samples, device=x.device)).unbind(1)
        return require_finite(split(whole)[0]), split(part)

    def again(x: Tensor, sigma: Tensor) -> Sums:
        return split(sums(x, sigma, of_few, few).squeeze(1))

    return mean_gradient(first, again, lambda shift, x, sigma: [x + shift, sigma], x, sigma)


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
