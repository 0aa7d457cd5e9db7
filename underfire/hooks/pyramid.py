"""Find the feature maps of a network for a decoder that reads one layer of each spatial size, a feature pyramid."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from underfire.errors import Unsupported
from underfire.hooks.reading import frozen, remove_at_exit, unwrap


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

    Of nested layers that return the same tensor, the innermost is named. Sizes that come after smaller ones, as in a
    decoder, are left out.

    Raises:
        Unsupported: no layer has space.
    """
    seen: list[tuple[PyramidLevel, tuple[int, int]]] = []  # in order of execution, with the identity of the output

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
                identity = output.data_ptr(), output._version
                if not (seen and seen[-1][1] == identity):
                    seen.append((PyramidLevel(name, output.shape[1], (output.shape[2], output.shape[3])), identity))

        return hook

    noise = torch.rand(1, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)
    with ExitStack() as stack, torch.no_grad(), frozen(model):
        for name, module in unwrap(model).named_modules():
            if name:
                stack.enter_context(remove_at_exit(module.register_forward_hook(watch(name))))
        model(noise)
    if not seen:
        raise Unsupported("the model has no layer with a spatial output [B, C, h, w]; choose another interpreter")
    # keep the last layer of each size, while sizes fall
    found: list[PyramidLevel] = []
    for level, _ in seen:
        area = level.size[0] * level.size[1]
        if found and found[-1].size == level.size:
            found[-1] = level
        elif not found or area < found[-1].size[0] * found[-1].size[1]:
            found.append(level)
    return found
