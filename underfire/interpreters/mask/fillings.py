"""Choose the replacement for the deleted pixels of each image: a blurred image, a more blurred image, or black."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from underfire.ascent.step import take
from underfire.attribution.fills import fill_image
from underfire.attribution.scores import class_score
from underfire.hooks import bypass_cache, frozen
from underfire.interpreters.mask.variants import SIDE, MaskVariant
from underfire.transforms.blur import gaussian_blur, median_blur
from underfire.validate import per_sample

Fill = Callable[[Tensor], Tensor]
_WIDER = (20.0, 40.0, 80.0)  # sigmas of wider Gaussians, in pixels of 224, that are tried where the class stays


@dataclass(frozen=True)
class Filling:
    """A function from images to the replacements for their deleted pixels; each image has its own fill.

    Attributes:
        fills: the functions, from images `[B, C, H, W]` to images.
        choice: the number of the function of each image, int64 `[B]`; None is the first for all.
    """

    fills: tuple[Fill, ...]
    choice: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the replacements for deleted pixels, shaped like `x`."""
        null = self.fills[0](x)
        for number, fill in enumerate(self.fills[1:], 1):
            assert self.choice is not None
            null = torch.where(per_sample(self.choice == number, x), fill(x), null)
        return null

    def take(self, rows: Tensor) -> Filling:
        """Return the filling of the images at `rows`, int64 `[M]`."""
        return replace(self, choice=take(self.choice, rows))


def filling_of(model: nn.Module, x: Tensor, y: Tensor, variant: MaskVariant, fill: str | float | None) -> Filling:
    """Return the filling that the option `fill` of `mask_game` means for these images."""
    if fill is None:
        return _chosen(model, x.detach(), y, variant)
    return Filling((partial(_blurred, variant=variant) if fill == "variant" else partial(fill_image, fill=fill),))


def scale_of(x: Tensor) -> float:
    """Return the factor from lengths of a variant, for images of 224 pixels, to lengths in these images."""
    return min(x.shape[2:]) / SIDE


def _blurred(x: Tensor, variant: MaskVariant) -> Tensor:
    """Return the blurred images of the variant."""
    scale = scale_of(x)
    if variant.blur is None:
        return median_blur(x, 2 * max(1, round((variant.median * scale - 1) / 2)) + 1)
    return gaussian_blur(x, variant.blur[0] * scale, max(1, round(variant.blur[1] * scale)))


def _wider(x: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(x, sigma * scale_of(x))


@torch.no_grad()
def _chosen(model: nn.Module, x: Tensor, y: Tensor, variant: MaskVariant) -> Filling:
    """Return the filling that takes, of every image, the first fill that loses the class.

    The fills are the variant's blurred image, wider and wider Gaussians, and black. The class is lost if at most half
    its probability remains. If no fill loses it, the one that leaves the lowest probability is taken. The strokes of
    small images are as wide as the blur of the variants, so that the class often survives it.
    """
    fills: list[Fill] = [partial(_blurred, variant=variant), *(partial(_wider, sigma=sigma) for sigma in _WIDER)]
    fills.append(partial(fill_image, fill="black"))
    if not len(x):
        return Filling(tuple(fills[:1]))
    with frozen(model), bypass_cache(model):
        whole = class_score(model(x).softmax(1), y)
        least, choice = torch.full_like(whole, float("inf")), torch.zeros_like(y)
        for number, fill in enumerate(fills):
            # take the next fill for images that still have the class
            p = class_score(model(fill(x)).softmax(1), y)
            better = (least > whole / 2) & (p < least)
            least, choice = torch.where(better, p, least), torch.where(better, number, choice)
            if bool((least <= whole / 2).all()):
                break
    # keep the fills that an image has, so that no other is computed again
    kept, choice = choice.unique(return_inverse=True)
    return Filling(tuple(fills[number] for number in kept.tolist()), choice)
