"""Integrated gradients (Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underfire.attribution.chunks import MEMORY, chunk_within, sum_in_chunks
from underfire.attribution.scores import (
    back_propagated,
    check_classes,
    check_double_backward,
    require_finite,
    score,
    wide_shift,
)
from underfire.attribution.variants import fill_image
from underfire.catalog import card
from underfire.errors import InputError, nearest
from underfire.hooks import bypass_cache, capture_relu_rule, frozen
from underfire.measures.explanation import gap

BASELINES: dict[str, str | float] = {"black": "black", "white": 1.0, "mean": "mean", "blur": "blur"}  # see `fill_image`
QUADRATURES = ("gauss-legendre", "left", "right", "middle")


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The map of `integrated_gradients`, and by how much its sum misses the change (see `completeness_gap`)."""
    m = integrated_gradients(model, x, y, **options)
    same = {name: options[name] for name in ("baseline", "neuron") if name in options}
    return m, {"completeness_gap": completeness_gap(model, x, y, m.detach(), **same)}


@card(
    "interpreter",
    paper="Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017",
    family="back-propagation",
    differentiable=True,
    second_order=True,
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
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Each pixel's way from the baseline, times the mean gradient along it, summed over channels; signed.

    `IG = (x - x') ∫ ∂f(x' + α (x - x')) / ∂x dα`, α from 0 to 1. The map sums to `f(x) - f(x')` up to the error of the
    quadrature, which `completeness_gap` reports.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        baseline: x', see `baselines`; of several the maps are averaged, each with all steps.
        steps: gradients on the way from one baseline.
        quadrature: where on the way: `"gauss-legendre"`; or Riemann's sums, `"right"` as in the paper, `"left"`,
            `"middle"`.
        neuron: explain this inner neuron instead, `"LAYER:UNIT"` (see `parts.score`).
        double_backward: how the map's own derivative is taken, `"finite_difference"` or `"exact"`.
        chunk: how many points of all images' ways go through the model at once; None is as many as `memory` allows.
        memory: for what the layers put out, in MiB.

    Returns:
        The map, `[B, 1, H, W]`, in logits.

    Raises:
        InputError: an option is wrong. ModelError: a gradient is NaN.
    """
    check_classes(x, y)
    check_double_backward(double_backward, ("finite_difference", "exact"))
    attached = torch.is_grad_enabled() and x.requires_grad
    x = x if attached else x.detach()
    empty = baselines(x, baseline)
    n = len(empty)
    ends, starts, classes = x.repeat(n, 1, 1, 1), empty.flatten(0, 1), y.repeat(n)
    alphas, shares = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in nodes(quadrature, steps))
    twice = attached and double_backward == "exact"
    at_once = chunk_within(model, x, memory, gradients=True, twice=twice) if chunk is None else chunk

    def along(ends: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
        def gradients(row: Tensor, step: Tensor, ends: Tensor, starts: Tensor) -> Tensor:
            point = torch.lerp(starts[row], ends[row], alphas[step].reshape(-1, 1, 1, 1))
            with bypass_cache(model):  # also when the pass is made again on the way back
                g = back_propagated(model, point, classes[row], neuron, twice=twice)
            return weights.view(steps, -1, 1, 1, 1)[step] * g.unsqueeze(1)

        with frozen(model):
            return sum_in_chunks(gradients, steps, at_once, ends, starts)

    if attached and not twice:
        # How far the mean gradient follows the image, and how far the baseline, each needs a sum of its own.
        both = torch.stack([alphas * shares, (1 - alphas) * shares], 1)
        slopes = capture_relu_rule(lambda ends, starts: along(ends, starts, both))
        mean = cast(Tensor, _Along.apply(ends, starts, slopes))
    else:
        mean = along(ends, starts, shares).squeeze(1)
    return ((ends - starts) * require_finite(mean)).sum(1, keepdim=True).unflatten(0, (n, -1)).mean(0)


class _Along(torch.autograd.Function):
    """The mean gradient along the way, with its derivative by a difference: all points of the way move alike."""

    @staticmethod
    def forward(ctx: Any, ends: Tensor, starts: Tensor, along: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        sums = along(ends, starts)
        ctx.save_for_backward(ends, starts, sums)
        ctx.along = along
        return sums.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        ends, starts, sums = ctx.saved_tensors
        shift, d = wide_shift(grads[0])
        to_ends, to_starts = ((ctx.along(ends + shift, starts + shift) - sums) / d.unsqueeze(1)).unbind(1)
        return to_ends, to_starts, None


def baselines(x: Tensor, baseline: str | Tensor) -> Tensor:
    """The baselines of every image, `[N, B, C, H, W]`.

    Args:
        x: images `[B, C, H, W]`.
        baseline: `"black"`, `"white"`, `"mean"` (the image's mean colour), `"blur"` (the image under a Gaussian of
            10 pixels at a side of 224), or `"many"`: these four; or images `[C, H, W]`, one for each image
            `[B, C, H, W]`, or N of them `[N, 1, C, H, W]` or `[N, B, C, H, W]`.

    Raises:
        InputError: there is no such baseline, or its shape does not fit.
    """
    if isinstance(baseline, str):
        names = tuple(BASELINES) if baseline == "many" else (baseline,)
        if not BASELINES.keys() >= set(names):
            raise InputError(f"unknown baseline {baseline!r}; {nearest(baseline, (*BASELINES, 'many'))}")
        return torch.stack([fill_image(x, BASELINES[name]) for name in names])
    try:
        images = baseline.to(x) if baseline.dim() == 5 else baseline.to(x).unsqueeze(0)
        return images.expand(len(images), *x.shape)
    except RuntimeError:
        raise InputError(f"baseline {tuple(baseline.shape)} does not fit images {tuple(x.shape)}") from None


@cache
def nodes(quadrature: str, steps: int) -> tuple[list[float], list[float]]:
    """Where on `[0, 1]` a quadrature looks, and the weights, which sum to one.

    >>> nodes("right", 2)
    ([0.5, 1.0], [0.5, 0.5])

    Raises:
        InputError: there is no such quadrature, or no step.
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
def completeness_gap(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    m: Tensor,
    *,
    baseline: str | Tensor = "black",
    neuron: str | None = None,
) -> Tensor:
    """By how much the sum of a map misses `f(x) - f(x')`, relative to that change, `[B]`; nan where nothing changes.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class that was output, int64 `[B]`.
        m: maps `[B, 1, H, W]` of `integrated_gradients` with the same baseline and neuron.
        baseline: x', see `baselines`; of several, f(x') is their mean.
        neuron: see `integrated_gradients`.
    """
    with frozen(model):
        empty = torch.stack([score(model, start, y, neuron) for start in baselines(x, baseline)]).mean(0)
        return gap(m, score(model, x, y, neuron), empty)
