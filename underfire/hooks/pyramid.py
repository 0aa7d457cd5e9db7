"""Find the feature maps of a network for a decoder that reads one layer of each spatial size, a feature pyramid."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from underfire.hooks.finding import last_spatial_layer, spatial_layers, traced


class PyramidLevel(NamedTuple):
    """The last layer that returns feature maps of one size.

    Attributes:
        layer: its name.
        channels: number of feature maps.
        size: height and width of the feature maps.
    """

    layer: str
    channels: int
    size: tuple[int, int]


def feature_pyramid(model: nn.Module, x: Tensor) -> list[PyramidLevel]:
    """Return the last layer of every spatial size, the finest first, found in one pass of a noise image.

    Feature maps may be channels last or tokens (see `layout_of`). A module that is used several times counts at its
    last use, and a layer inside a block that then reduces the size gives way to what enters the block. No layer counts
    that comes after `last_spatial_layer`.

    Raises:
        Unsupported: no layer has space, or tokens have no grid that can be found.
    """
    last, trace = last_spatial_layer(model, x), traced(model, x)
    found: dict[tuple[int, int], PyramidLevel] = {}
    for name, channels, layout in spatial_layers(model, x):
        if name == last or layout.grid not in found or not trace.narrows(name):
            found[layout.grid] = PyramidLevel(name, channels, layout.grid)
        if name == last:
            break
    return sorted(found.values(), key=lambda level: -level.size[0] * level.size[1])
