"""Draw the pictures of a study: an image, and its map over it. Small images are enlarged smoothly."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from underfire import figures
from underfire.study.design import picture_name

SIDE = 320
"""Pixels that a side of a picture has at least; a smaller image is enlarged by a whole factor."""


def draw(image: Tensor, map: Tensor, item: int, folder: Path, *, map_alone: bool = False) -> bool:  # noqa: A002
    """Write the image of an item, and its map; return whether the map has negative values, as the legend must say.

    Args:
        image: the image `[C, H, W]`.
        map: its map `[1, h, w]`.
        item: the number of the item.
        folder: the folder of the study.
        map_alone: draw the map on black, not over the image.
    """
    large = enlarged(image)
    figures.save(large, folder / picture_name(item, "image"))
    figures.save(
        figures.heatmap(map, large.new_zeros(large.shape) if map_alone else large), folder / picture_name(item, "map")
    )
    return bool((map < 0).any())


def enlarged(image: Tensor) -> Tensor:
    """Return an image `[C, H, W]`, enlarged by bicubic interpolation until each side has `SIDE` pixels.

    Without interpolation, a small image is a mosaic, in which people recognise less.
    """
    from torch.nn.functional import interpolate

    factor = -(-SIDE // min(image.shape[1:]))
    if factor <= 1:
        return image
    return interpolate(image[None].float(), scale_factor=factor, mode="bicubic")[0].clamp(0, 1)
