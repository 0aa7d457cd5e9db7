"""Deletion and insertion: the probability of a class as pixels are removed or put back, the most relevant first.

Source: Petsiuk, Das and Saenko, RISE, BMVC 2018, section 3.3. A map is faithful if the probability falls fast as pixels
are removed in its order (a small area), and rises fast as they are put back (a large area).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.attribution.variants import Model
from underfire.catalog import card
from underfire.measures.maps import informative
from underfire.measures.removal import Variant, VariantScores, counts, pixel_order, score_variants

_PAPER = "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018"


def deletion_variants(pixels: int, steps: int, fill: str) -> list[Variant]:
    """Return the variants of the images at the points of a deletion curve."""
    return [Variant(fill, k) for k in counts(pixels, steps)]


def insertion_variants(pixels: int, steps: int, fill: str) -> list[Variant]:
    """Return the variants of the images at the points of an insertion curve."""
    return [Variant(fill, k, keep=True) for k in counts(pixels, steps)]


def curve(found: VariantScores, variants: Sequence[Variant], m: Tensor) -> Tensor:
    """Return the probabilities along `variants`, `[B, steps + 1]`; nan where the map is constant or not finite."""
    points = torch.stack([found[variant][1] for variant in variants], 1)
    return torch.where(informative(m)[:, None].to(points.device), points, torch.nan)


def area(points: Tensor, variants: Sequence[Variant]) -> Tensor:
    """Return the area under a curve, `[B]`, by trapezoids over the share of pixels; it lies between 0 and 1."""
    share = torch.tensor([variant.k / variants[-1].k for variant in variants], dtype=points.dtype, device=points.device)
    return torch.trapezoid(points, share, dim=1)


def deletion_curve(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "black", chunk: int | None = None
) -> Tensor:
    """Return the probability of class `y` as pixels are removed, the most relevant first, `[B, steps + 1]`.

    Args:
        m: maps `[B, 1, h, w]`; among equal values the first in reading order is removed first.
        steps: in how many steps all pixels are removed; 224 removes 224 pixels at a time from an image of 224 x 224.
        fill: what replaces them: `"black"`, `"mean"` (the image's mean colour) or `"blur"`.

    Returns:
        The curve, from the whole image to none of it; nan where the map is constant or not finite.

    Raises:
        InputError: an option is wrong, or the shapes do not fit. ModelError: the model returns NaN.
    """
    orders = pixel_order(m, x)
    variants = deletion_variants(orders.shape[2], steps, fill)
    return curve(score_variants(model, x, y, orders, variants, chunk), variants, m)


def insertion_curve(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "blur", chunk: int | None = None
) -> Tensor:
    """Return the probability of class `y` as pixels are put back, the most relevant first, `[B, steps + 1]`.

    The curve goes from an image of nothing but the fill, by default the blurred image, to the whole image. Arguments
    and errors are those of `deletion_curve`; `attribution.fills.fill_image` explains the blur.
    """
    orders = pixel_order(m, x)
    variants = insertion_variants(orders.shape[2], steps, fill)
    return curve(score_variants(model, x, y, orders, variants, chunk), variants, m)


@card("measure", paper=_PAPER, table="maps", higher_is_better=False, limits=(0.0, 1.0))
def deletion(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "black", chunk: int | None = None
) -> Tensor:
    """Return the area under the deletion curve, `[B]`: small if the map marks the pixels that the class needs.

    Arguments and errors are those of `deletion_curve`. The result is nan where the map is constant or not finite.
    """
    points = deletion_curve(model, x, y, m, steps=steps, fill=fill, chunk=chunk)
    return area(points, deletion_variants(x.shape[2] * x.shape[3], steps, fill))


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(0.0, 1.0))
def insertion(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "blur", chunk: int | None = None
) -> Tensor:
    """Return the area under the insertion curve, `[B]`: large if the map marks pixels that suffice for the class.

    Arguments and errors are those of `deletion_curve`. The result is nan where the map is constant or not finite.
    """
    points = insertion_curve(model, x, y, m, steps=steps, fill=fill, chunk=chunk)
    return area(points, insertion_variants(x.shape[2] * x.shape[3], steps, fill))
