"""Deletion and insertion: what becomes of a class as its most relevant pixels go, or come back, first.

Source: Petsiuk, Das and Saenko, RISE, BMVC 2018, section 3.3. A map is faithful where deleting by it makes the
probability fall fast (a small area) and inserting by it makes it rise fast (a large one).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.measures.maps import informative
from underfire.measures.passes import Model
from underfire.measures.removal import Answers, Variant, answers, counts, pixel_order

_PAPER = "Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018"


def deletion_variants(pixels: int, steps: int, fill: str) -> list[Variant]:
    """The points of a deletion curve."""
    return [Variant(fill, k) for k in counts(pixels, steps)]


def insertion_variants(pixels: int, steps: int, fill: str) -> list[Variant]:
    """The points of an insertion curve."""
    return [Variant(fill, k, keep=True) for k in counts(pixels, steps)]


def curve(found: Answers, variants: Sequence[Variant], m: Tensor) -> Tensor:
    """The probabilities along `variants`, `[B, steps + 1]`; nan where the map ranks nothing."""
    points = torch.stack([found[variant][1] for variant in variants], 1)
    return torch.where(informative(m)[:, None].to(points.device), points, torch.nan)


def area(points: Tensor, variants: Sequence[Variant]) -> Tensor:
    """The area under a curve, `[B]`, by trapezoids over the share of pixels; between 0 and 1."""
    share = torch.tensor([variant.k / variants[-1].k for variant in variants], dtype=points.dtype, device=points.device)
    return torch.trapezoid(points, share, dim=1)


def deletion_curve(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "black", chunk: int | None = None
) -> Tensor:
    """The probability of class `y` as ever more pixels are removed, the most relevant first, `[B, steps + 1]`.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class, int64 `[B]`.
        m: maps `[B, 1, h, w]`; among equal values the first in reading order goes first.
        steps: how many times pixels go; 224 takes 224 pixels at a time from an image of 224 x 224.
        fill: what replaces them: `"black"`, `"mean"` (the image's mean colour) or `"blur"`.
        chunk: how many pictures go through the model at once; None is what suits the device.

    Returns:
        The curve, from the whole image to none of it; nan where the map is constant or not finite.

    Raises:
        InputError: an option is wrong, or the shapes do not fit. ModelError: the model returns NaN.
    """
    orders = pixel_order(m, x)
    variants = deletion_variants(orders.shape[2], steps, fill)
    return curve(answers(model, x, y, orders, variants, chunk), variants, m)


def insertion_curve(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "blur", chunk: int | None = None
) -> Tensor:
    """The probability of class `y` as pixels come back into a blurred image, the most relevant first; as deletion.

    See `passes.filled` for the blur.
    """
    orders = pixel_order(m, x)
    variants = insertion_variants(orders.shape[2], steps, fill)
    return curve(answers(model, x, y, orders, variants, chunk), variants, m)


@card("measure", paper=_PAPER, table="maps", higher_is_better=False, limits=(0.0, 1.0))
def deletion(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "black", chunk: int | None = None
) -> Tensor:
    """The area under the deletion curve, `[B]`: small where the map finds what the class needs.

    Args, values and errors as of `deletion_curve`; nan where the map is constant or not finite.
    """
    points = deletion_curve(model, x, y, m, steps=steps, fill=fill, chunk=chunk)
    return area(points, deletion_variants(x.shape[2] * x.shape[3], steps, fill))


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(0.0, 1.0))
def insertion(
    model: Model, x: Tensor, y: Tensor, m: Tensor, *, steps: int = 224, fill: str = "blur", chunk: int | None = None
) -> Tensor:
    """The area under the insertion curve, `[B]`: large where the map finds what suffices for the class.

    Args, values and errors as of `deletion_curve`; nan where the map is constant or not finite.
    """
    points = insertion_curve(model, x, y, m, steps=steps, fill=fill, chunk=chunk)
    return area(points, insertion_variants(x.shape[2] * x.shape[3], steps, fill))
