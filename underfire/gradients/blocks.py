"""Views that transform the blocks of an image, each in another way: SIA and BSR. A batch shares the draws of a copy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.gradients import operations
from underfire.gradients.views import View, on_host, uniform, whole
from underfire.validate import at_least_one

#: The operations of SIA, one of which is drawn for each block.
STRUCTURE_INVARIANT = (
    operations.shift_rows,
    operations.shift_columns,
    operations.flip_rows,
    operations.flip_columns,
    operations.half_turn,
    operations.darken,
    operations.add_noise,
    operations.coarsen,
    operations.low_pass,
    operations.drop_channels,
)


def structure_invariant(samples: int = 20, blocks: int = 3) -> View:
    """Yield copies whose blocks are each shifted, flipped, turned, darkened, or changed in another way (SIA).

    An image is cut into `blocks x blocks` blocks at random rows and columns. Each block gets one of ten operations:
    shift its rows or columns, flip them, rotate it by 180 degrees, scale its values, add noise, resize it, remove high
    frequencies, or drop channels.

    Args:
        samples: number of copies, the paper's N.
        blocks: number of blocks along each side, the paper's s.

    Raises:
        InputError: an argument is below 1; on a call, the images have fewer pixels than blocks along a side.

    Source: Wang et al., Structure Invariant Transformation for better Adversarial Transferability, ICCV 2023.
    """
    at_least_one(samples=samples, blocks=blocks)

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        _check(x, blocks, "structure_invariant")
        draws = on_host(generator)
        for _ in range(samples):
            rows, columns = ([0, *_cuts(side, blocks, draws), side] for side in x.shape[2:])
            bands = []
            for top, bottom in pairwise(rows):
                band = []
                for left, right in pairwise(columns):
                    operation = STRUCTURE_INVARIANT[whole(0, len(STRUCTURE_INVARIANT), draws)]
                    band.append(operation(x[:, :, top:bottom, left:right], draws))
                bands.append(torch.cat(band, 3))
            yield torch.cat(bands, 2)

    return view


def block_shuffle(samples: int = 20, blocks: int = 2, rotation: float = 24.0) -> View:
    """Yield copies whose blocks are put into another order and rotated by small angles (BSR).

    An image is cut into strips along a random side, and each strip into blocks, at places of its own. Strips and the
    blocks of a strip are shuffled, and each block is rotated around its centre. As in the authors' code, no strip or
    block is more than twice as long as another one of its cut, except for rounding.

    Args:
        samples: number of copies, the paper's N.
        blocks: number of blocks along each side, the paper's n.
        rotation: the largest angle, either way, in degrees; the paper's tau.

    Raises:
        InputError: an argument is out of its range; on a call, the images have fewer pixels than blocks along a side.

    Source: Wang et al., Boosting Adversarial Transferability by Block Shuffle and Rotation, CVPR 2024.
    """
    at_least_one(samples=samples, blocks=blocks)
    if not 0 <= rotation <= 180:
        raise InputError(f"block_shuffle needs a rotation in [0, 180] degrees, got {rotation}")

    def shuffled(x: Tensor, side: int, draws: Generator | None) -> list[Tensor]:
        strips = x.split(_lengths(x.shape[side], blocks, draws), side)
        return [strips[i] for i in torch.randperm(blocks, generator=draws).tolist()]

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        _check(x, blocks, "block_shuffle")
        draws = on_host(generator)
        for _ in range(samples):
            first = 2 + whole(0, 2, draws)
            second = 5 - first
            strips = []
            for strip in shuffled(x, first, draws):
                turned = [
                    operations.rotated(block, uniform(-rotation, rotation, draws))
                    for block in shuffled(strip, second, draws)
                ]
                strips.append(torch.cat(turned, second))
            yield torch.cat(strips, first)

    return view


def _check(x: Tensor, blocks: int, name: str) -> None:
    if min(x.shape[2:]) < blocks:
        pixels = " x ".join(map(str, x.shape[2:]))
        raise InputError(f"{name} cuts an image into {blocks} x {blocks} blocks, and the images have {pixels} pixels")


def _cuts(side: int, blocks: int, draws: Generator | None) -> list[int]:
    """Return `blocks - 1` different places between the pixels of a side, in ascending order."""
    return sorted((1 + torch.randperm(side - 1, generator=draws)[: blocks - 1]).tolist())


def _lengths(side: int, blocks: int, draws: Generator | None) -> list[int]:
    """Return `blocks` lengths that sum to `side`, in proportion to numbers that are uniform in `[1, 2]`."""
    lot = 1 + torch.rand(blocks, generator=draws, dtype=torch.float64)
    lengths = (lot / lot.sum() * side).round().long()
    lengths[lengths.argmax()] += side - lengths.sum()
    return lengths.tolist()
