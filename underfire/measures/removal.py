"""Replace the most relevant pixels of images, or all others, and evaluate the model on these variants.

Several measures may need the same variant of an image; it goes through the model once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attribution.fills import fill_image
from underfire.attribution.variants import Model, class_scores
from underfire.errors import InputError
from underfire.measures.arrays import as_map, check_images
from underfire.measures.maps import ranks, resize


@dataclass(frozen=True)
class Variant:
    """One variant of every image: its `k` most relevant pixels, or all other pixels, are replaced.

    Attributes:
        fill: the content of the replaced pixels; empty if no pixel is replaced.
        k: the number of most relevant pixels.
        keep: whether these pixels stay and the others are replaced.
        order: index of the order that ranks the pixels; 0 is that of the map.
    """

    fill: str
    k: int
    keep: bool = False
    order: int = 0

    def plain(self, pixels: int) -> Variant:
        """Return the variant, or a common form of all variants that replace no pixel, or that replace every pixel."""
        if self.k == (pixels if self.keep else 0):
            return Variant("", 0)
        return Variant(self.fill, pixels) if self.k == (0 if self.keep else pixels) else self


VariantScores = Mapping[Variant, tuple[Tensor, Tensor]]
"""The logit and the probability of the class, `[B]` each, by variant."""


def counts(pixels: int, steps: int) -> list[int]:
    """Return the number of pixels at each of `steps + 1` points from none to all; at most one step per pixel.

    Raises:
        InputError: `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, such as 224, got {steps}")
    steps = min(steps, pixels)
    return [i * pixels // steps for i in range(steps + 1)]


def pixel_order(m: Tensor, x: Tensor) -> Tensor:
    """Return the rank of every pixel by the map at the size of the images, int64 `[1, B, H·W]`; 0 is the most relevant.

    Raises:
        InputError: images or maps have the wrong shape.
    """
    if x.dim() != 4 or len(m) != len(x):
        raise InputError(f"images and maps do not fit: got {tuple(x.shape)} and {tuple(m.shape)}")
    return ranks(resize(as_map(m), (x.shape[2], x.shape[3])))[None]


def score_variants(
    model: Model, x: Tensor, y: Tensor, orders: Tensor, variants: Iterable[Variant], chunk: int | None = None
) -> VariantScores:
    """Return the scores of every variant of every image; equal variants go through the model once.

    Args:
        orders: ranks of the pixels, int64 `[orders, B, H·W]` (see `pixel_order`).
        variants: the variants to evaluate.

    Raises:
        InputError: a fill is unknown, or the shapes do not fit. ModelError: the model returns NaN.
    """
    check_images(x, y)
    # the different variants, and what each of them replaces
    pixels, wanted = orders.shape[2], list(variants)
    distinct = list(dict.fromkeys(variant.plain(pixels) for variant in wanted))
    names = list(dict.fromkeys(variant.fill for variant in distinct if variant.fill))
    fills = torch.stack([fill_image(x, name) for name in names]) if names else x[None]
    place = torch.tensor([names.index(variant.fill) if variant.fill else 0 for variant in distinct], device=x.device)
    k, order = (
        torch.tensor([getattr(variant, word) for variant in distinct], device=x.device) for word in ("k", "order")
    )
    keep = torch.tensor([variant.keep for variant in distinct], device=x.device)

    def show(image: Tensor, variant: Tensor) -> Tensor:
        # A pixel is replaced if its rank is below k, so that no variant depends on another one.
        replaced = (orders[order[variant], image] < k[variant, None]) ^ keep[variant, None]
        return torch.where(replaced.view(-1, 1, *x.shape[2:]), fills[place[variant], image], x[image])

    logit, probability = class_scores(model, x, y, len(distinct), show, chunk)
    found = {variant: (logit[:, i], probability[:, i]) for i, variant in enumerate(distinct)}
    return {variant: found[variant.plain(pixels)] for variant in wanted}
