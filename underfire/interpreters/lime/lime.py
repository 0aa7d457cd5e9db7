"""Local surrogates (Ribeiro, Singh and Guestrin, Why Should I Trust You?, KDD 2016), for images: LIME."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.superpixels import paint_segments
from underfire.catalog import card
from underfire.interpreters.lime.regression import lime_fit


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The map of `lime`, and how much of the answers its regression explains (R², weighted), `[B]`."""
    fit = lime_fit(model, x, y, **options)
    return paint_segments(fit.weights, fit.segments).to(x.dtype), {"r2": fit.r2}


@card(
    "interpreter",
    paper="Ribeiro, Singh and Guestrin, Why Should I Trust You? Explaining the Predictions of Any Classifier, KDD 2016",
    family="perturbation",
    differentiable=True,
    second_order=False,
    detailed=detailed,
)
def lime(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    superpixels: str | Tensor = "quickshift",
    segments: int = 50,
    samples: int = 1000,
    fill: str | float = "mean",
    output: str = "logit",
    design: str = "orthogonal",
    chunk: int | None = None,
    memory: float = MEMORY,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What showing each superpixel adds to the answer for class `y`, by a weighted ridge regression; signed.

    Kernel, penalty and superpixels are those of the lime package. What is drawn is steadier: superpixels are hidden in
    pairs of opposites, which cancels what two of them do together, and in orthogonal plans (see `coalitions`). The
    explanation is differentiable with the superpixels held still.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        superpixels: `"quickshift"`, `"slic"`, `"grid"`, or integers `[H, W]` or `[B, H, W]` (see `superpixels.cut`).
        segments: about how many, for `"slic"` and `"grid"`; quickshift finds out by itself.
        samples: how many ways of hiding are tried, the same number of passes.
        fill: what hidden superpixels show: their own `"mean"` colour, `"black"`, the image under a `"blur"`, or a
            grey (see `asking.filling`).
        output: `"logit"`, which is closer to a sum over superpixels, or `"probability"`, as in the paper.
        design: `"orthogonal"`, `"paired"`, or `"independent"`, as in the lime package.
        chunk: how many images go through the model at once; None is what `memory` allows.
        memory: what their layers' outputs may take, in MiB.
        generator: source of what is hidden, the same for all images with as many superpixels.

    Returns:
        The map, `[B, 1, H, W]`, constant on every superpixel, in logits or in probability.

    Raises:
        InputError: more superpixels than pixels, or fewer than two samples. Unsupported: an unknown choice. ModelError:
            the model returns NaN.
    """
    fit = lime_fit(
        model,
        x,
        y,
        superpixels=superpixels,
        segments=segments,
        samples=samples,
        fill=fill,
        output=output,
        design=design,
        chunk=chunk,
        memory=memory,
        generator=generator,
    )
    return paint_segments(fit.weights, fit.segments).to(x.dtype)
