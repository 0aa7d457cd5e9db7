"""Integrated gradients (Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017)."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, resolve_chunk, sum_in_chunks
from underfire.attribution.fills import fill_image
from underfire.attribution.gradients import (
    Sums,
    backward_to_input,
    check_double_backward,
    drawn_points,
    mean_gradient,
)
from underfire.attribution.scores import check_y, score
from underfire.catalog import card
from underfire.errors import InputError, nearest, shown
from underfire.hooks import bypass_cache, folded, frozen
from underfire.measures.explanation import gap
from underfire.validate import per_sample, require_finite

BASELINES: dict[str, str | float] = {"black": "black", "white": 1.0, "mean": "mean", "blur": "blur"}
QUADRATURES = ("gauss-legendre", "left", "right", "middle")


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the map of `integrated_gradients` and its `quadrature_error`."""
    m = integrated_gradients(model, x, y, **options)
    same = {name: options[name] for name in ("baseline", "neuron") if name in options}
    return m, {"completeness_gap": quadrature_error(model, x, y, m.detach(), **same)}


@card(
    "interpreter",
    paper="Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017",
    family="back-propagation",
    differentiable=True,
    second_order=True,
    complete=True,
    detailed=detailed,
)
def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    baseline: str | Tensor = "black",
    steps: int = 50,
    quadrature: str = "gauss-legendre",
    neuron: str | None = None,
    double_backward: str = "finite_difference",
    derivative_steps: int | None = None,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Multiply each pixel's difference to a baseline by the mean gradient on the line between both; sum over channels.

    `IG = (x - x') ∫ ∂f(x' + α (x - x')) / ∂x dα`, α from 0 to 1; signed. The map sums to `f(x) - f(x')` up to the error
    of the quadrature, which `quadrature_error` reports.

    Args:
        baseline: x' (see `baselines`); the maps of several baselines are averaged, each with all steps.
        steps: number of gradients between the image and one baseline.
        quadrature: at which points the gradients are taken: `"gauss-legendre"`, or those of a Riemann sum, `"right"`
            (as in the paper), `"left"` or `"middle"`.
        double_backward: `"finite_difference"` or `"exact"` (see `attribution.gradients.input_gradient`).
        derivative_steps: at how many of the points the map is differentiated by finite differences, others in
            every step of an attack; the derivative is right in expectation and costs less. None is all points.

    Returns:
        The map, `[B, 1, H, W]`, in logits.

    Raises:
        InputError: an option is wrong. ModelError: a gradient is NaN.
    """
    check_y(x, y)
    check_double_backward(double_backward, ("finite_difference", "exact"))
    attached = torch.is_grad_enabled() and x.requires_grad
    x = x if attached else x.detach()
    # one row for each baseline of each image
    origins = baselines(x, baseline)
    n = len(origins)
    ends, starts, classes = x.repeat(n, 1, 1, 1), origins.flatten(0, 1), y.repeat(n)
    alphas, shares = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in nodes(quadrature, steps))
    twice = attached and double_backward == "exact"
    chunk_size = resolve_chunk(model, x, chunk, memory, gradients=True, twice=twice)

    def sums(ends: Tensor, starts: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Return the sums of the gradients at chosen points with each column of weights `[steps, k]`, `[N, k, ...]`."""

        def gradients(row: Tensor, number: Tensor, ends: Tensor, starts: Tensor) -> Tensor:
            step = chosen[number]
            point = torch.lerp(starts[row], ends[row], per_sample(alphas[step], starts[row]))
            with bypass_cache(model):  # also when this pass is repeated in the backward pass
                g = backward_to_input(model, point, classes[row], neuron, twice=twice)
            return weights.view(steps, -1, 1, 1, 1)[step] * g.unsqueeze(1)

        with frozen(model), nullcontext() if neuron is not None or twice else folded(model, x):
            return sum_in_chunks(gradients, len(chosen), chunk_size, ends, starts)

    every = torch.arange(steps, device=x.device)
    if attached and not twice:
        # the sums for the derivatives with respect to the image and to the baseline, of all points or of a few
        few = drawn_points(steps, derivative_steps, x)
        both = torch.stack([alphas * shares, (1 - alphas) * shares], 1)
        of_few = torch.zeros_like(both).index_copy(0, few, both[few] * (steps / len(few)))

        def first(ends: Tensor, starts: Tensor) -> tuple[Tensor, Sums]:
            found = sums(ends, starts, torch.cat([both, of_few], 1), every)
            return found[:, :2].sum(1), (found[:, 2], found[:, 3])

        def again(ends: Tensor, starts: Tensor) -> Sums:
            return sums(ends, starts, of_few, few).unbind(1)

        mean = mean_gradient(first, again, lambda shift, *inputs: [t + shift for t in inputs], ends, starts)
    else:
        mean = sums(ends, starts, shares, every).squeeze(1)
    # multiply by the difference to the baseline, sum over channels, average over baselines
    return ((ends - starts) * require_finite(mean)).sum(1, keepdim=True).unflatten(0, (n, -1)).mean(0)


def baselines(x: Tensor, baseline: str | Tensor) -> Tensor:
    """Return the baselines of every image, `[N, B, C, H, W]`.

    Args:
        x: images `[B, C, H, W]`.
        baseline: `"black"`, `"white"`, `"mean"` (the mean colour of the image), `"blur"` (see
            `attribution.fills.fill_image`), or `"many"`, all four of them. Or a tensor: one image `[C, H, W]`, one for
            each image `[B, C, H, W]`, or N of these, `[N, 1, C, H, W]` or `[N, B, C, H, W]`.

    Raises:
        InputError: the name is unknown, or the shape does not fit.
    """
    if isinstance(baseline, str):
        names = tuple(BASELINES) if baseline == "many" else (baseline,)
        if not BASELINES.keys() >= set(names):
            raise InputError(f"unknown baseline {baseline!r}; {nearest(baseline, (*BASELINES, 'many'))}")
        return torch.stack([fill_image(x, BASELINES[name]) for name in names])
    if not isinstance(baseline, Tensor):
        raise InputError(f"a baseline is a name, such as 'black', or a tensor of images, got {shown(baseline)}")
    try:
        images = baseline.to(x) if baseline.dim() == 5 else baseline.to(x).unsqueeze(0)
        return images.expand(len(images), *x.shape)
    except RuntimeError:
        raise InputError(f"baseline {tuple(baseline.shape)} does not fit images {tuple(x.shape)}") from None


@cache
def nodes(quadrature: str, steps: int) -> tuple[list[float], list[float]]:
    """Return the points in `[0, 1]` and the weights of a quadrature of `steps` points; the weights sum to one.

    >>> nodes("right", 2)
    ([0.5, 1.0], [0.5, 0.5])

    Raises:
        InputError: the quadrature is unknown, or `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if quadrature == "gauss-legendre":
        from numpy.polynomial.legendre import leggauss

        places, weights = leggauss(steps)
        return ((places + 1) / 2).tolist(), (weights / 2).tolist()
    first = {"left": 0.0, "middle": 0.5, "right": 1.0}.get(quadrature)
    if first is None:
        raise InputError(f"unknown quadrature {quadrature!r}; {nearest(quadrature, QUADRATURES)}")
    return [(k + first) / steps for k in range(steps)], [1 / steps] * steps


@torch.no_grad()
def quadrature_error(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    baseline: str | Tensor = "black",
    neuron: str | None = None,
) -> Tensor:
    """Return by how much the sum of a map misses `f(x) - f(x')`, as a share of it, `[B]`; NaN if it is zero.

    Args:
        m: maps `[B, 1, H, W]` of `integrated_gradients` with the same baseline and neuron.
        baseline: x' (see `baselines`); of several, f(x') is the mean over all.
    """
    with frozen(model):
        before = torch.stack([score(model, start, y, neuron) for start in baselines(x, baseline)]).mean(0)
        return gap(m, score(model, x, y, neuron), before)
