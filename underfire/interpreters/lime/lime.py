"""LIME, local surrogates, for images (Ribeiro, Singh and Guestrin, Why Should I Trust You?, KDD 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.superpixels import paint_segments
from underfire.catalog import card
from underfire.interpreters.lime.regression import lime_fit


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the map of `lime` and the weighted R² of its regression, `[B]`."""
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
    samples: int = 500,
    fill: str | float = "mean",
    output: str = "logit",
    design: str = "orthogonal",
    chunk: int | None = None,
    memory: float = MEMORY,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the weight of each superpixel in a weighted ridge regression of the output for class `y`; signed.

    Kernel, penalty and superpixels are those of the lime package. The samples are different: they come from orthogonal
    designs in pairs of complements, which cancel the interactions of two superpixels (see `attribution.coalitions`), so
    that the explanation depends less on the generator. The map is differentiable; superpixels count as constant.

    Args:
        superpixels: `"quickshift"`, `"slic"`, `"grid"`, or integers `[H, W]` or `[B, H, W]`.
        segments: approximate number of superpixels for `"slic"` and `"grid"`; quickshift chooses the number itself.
        samples: number of samples; each costs one pass. With an orthogonal design and logits, 500 samples give weights
            that vary over seeds as little as the weights of the lime package, which takes 1000. Use 1000 for
            `output="probability"` or another design.
        fill: the content of hidden superpixels; `"mean"` is the mean colour of each superpixel.
        output: `"logit"`, which is closer to a sum over superpixels, or `"probability"`, as in the paper.
        design: `"orthogonal"`, `"paired"`, or `"independent"`, as in the lime package.

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
