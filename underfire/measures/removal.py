"""Images with the most relevant pixels replaced, or all but them: every variant once, however many measures want it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.measures.arrays import is_map
from underfire.measures.maps import ranks, resize
from underfire.measures.passes import Model, ask, check_images, filled


@dataclass(frozen=True)
class Variant:
    """One way to show an image.

    Attributes:
        fill: what stands in for the pixels that are taken away (see `passes.filled`).
        k: how many pixels are concerned, the most relevant ones.
        keep: whether they are what stays, instead of what goes.
        order: by which of the orders the pixels are relevant: 0 is the map's own.
    """

    fill: str
    k: int
    keep: bool = False
    order: int = 0

    def plain(self, pixels: int) -> Variant:
        """The same picture by one name: nothing taken away, or everything, needs no order."""
        if self.k == (pixels if self.keep else 0):
            return Variant("", 0)
        return Variant(self.fill, pixels) if self.k == (0 if self.keep else pixels) else self


Answers = Mapping[Variant, tuple[Tensor, Tensor]]
"""The logit and the probability of the class, `[B]` each, by variant."""


def counts(pixels: int, steps: int) -> list[int]:
    """How many pixels are concerned at each of `steps + 1` points from none to all; never more points than pixels.

    Raises:
        InputError: `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, such as 224, got {steps}")
    steps = min(steps, pixels)
    return [i * pixels // steps for i in range(steps + 1)]


def pixel_order(m: Tensor, x: Tensor) -> Tensor:
    """The rank of every pixel of the images by the map at their size, int64 `[1, B, H·W]`, 0 for the most relevant.

    Raises:
        InputError: images or maps have another shape.
    """
    if x.dim() != 4 or len(m) != len(x):
        raise InputError(f"images and maps do not fit: got {tuple(x.shape)} and {tuple(m.shape)}")
    return ranks(resize(is_map(m), (x.shape[2], x.shape[3])))[None]


def answers(
    model: Model, x: Tensor, y: Tensor, orders: Tensor, variants: Iterable[Variant], chunk: int | None = None
) -> Answers:
    """What the model says of every image under every variant; equal pictures are asked about once.

    Args:
        model: maps images to logits `[B, K]`.
        x: images `[B, C, H, W]`.
        y: the class of interest, int64 `[B]`.
        orders: ranks of the pixels, int64 `[orders, B, H·W]` (see `pixel_order`).
        variants: what to show.
        chunk: how many pictures go through the model at once; None is what suits the device.

    Raises:
        InputError: a fill is unknown, or something does not fit. ModelError: the model returns NaN.
    """
    check_images(x, y)
    pixels, wanted = orders.shape[2], list(variants)
    asked = list(dict.fromkeys(variant.plain(pixels) for variant in wanted))
    names = list(dict.fromkeys(variant.fill for variant in asked if variant.fill))
    fills = torch.stack([filled(x, name) for name in names]) if names else x[None]
    place = torch.tensor([names.index(variant.fill) if variant.fill else 0 for variant in asked], device=x.device)
    k, order = (torch.tensor([getattr(variant, word) for variant in asked], device=x.device) for word in ("k", "order"))
    keep = torch.tensor([variant.keep for variant in asked], device=x.device)

    def show(image: Tensor, variant: Tensor) -> Tensor:
        # Removed is what ranks before k: no sorting, and no state from one step to the next.
        gone = (orders[order[variant], image] < k[variant, None]) ^ keep[variant, None]
        return torch.where(gone.view(-1, 1, *x.shape[2:]), fills[place[variant], image], x[image])

    logit, probability = ask(model, x, y, len(asked), show, chunk)
    found = {variant: (logit[:, i], probability[:, i]) for i, variant in enumerate(asked)}
    return {variant: found[variant.plain(pixels)] for variant in wanted}
