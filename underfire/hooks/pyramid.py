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
    """Return the last layer of every spatial size, the largest size first; one pass of a noise image finds them.

    Feature maps may be channels last or tokens (see `layout_of`). The order is that of the last use of each module.
    A layer inside a block that reduces the size after this layer is taken only if no earlier layer has its size. Layers
    after `last_spatial_layer` are left out.

    Raises:
        Unsupported: no layer has spatial dimensions, or the grid of the tokens cannot be found.
    """
    last, trace = last_spatial_layer(model, x), traced(model, x)
    levels: dict[tuple[int, int], PyramidLevel] = {}
    for name, channels, layout in spatial_layers(model, x):
        # a later layer replaces an earlier one of the same size
        if name == last or layout.grid not in levels or not trace.narrows(name):
            levels[layout.grid] = PyramidLevel(name, channels, layout.grid)
        if name == last:
            break
    return sorted(levels.values(), key=lambda level: -level.size[0] * level.size[1])
