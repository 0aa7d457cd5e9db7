"""Occlusion sensitivity (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.removal import Edges, score_drops
from underfire.catalog import card
from underfire.errors import InputError


@card(
    "interpreter",
    paper="Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
    family="perturbation",
    differentiable=True,
    second_order=False,
)
def occlusion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: str | float = "black",
    output: str = "logit",
    reuse: bool = True,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Return how much the output for class `y` drops when a patch covers a pixel, averaged over all patches that do.

    A patch begins every `stride` pixels; the last of each row and column is cut off at the border of the image.

    Args:
        patch: side of a patch; None is a seventh of the image's shorter side, 32 of 224.
        stride: at most the side of a patch; None is half of it.
        output: `"logit"`, or `"probability"` as in the paper, which moves little once the model is certain.
        reuse: compute only the activations that a patch can have changed, which gives the same numbers up to rounding;
            without effect if the map carries a graph.
        memory: MiB that one layer may read and write for a chunk; without effect if `chunk` is given.

    Returns:
        The map, `[B, 1, H, W]`, in logits or probability.

    Raises:
        InputError: patch and stride do not fit each other or the image, or the fill is outside the box. Unsupported:
            the fill is unknown. ModelError: an output is NaN.
    """
    shorter = min(x.shape[2:])
    side = patch if patch is not None else max(shorter // 7, 1)
    step = stride if stride is not None else max(side // 2, 1)
    if not 1 <= side <= shorter:
        raise InputError(f"patch must be from 1 to the image's shorter side of {shorter} pixels, got {side}")
    if not 1 <= step <= side:
        raise InputError(f"stride must be from 1 to the patch's {side} pixels, so that none is left out, got {step}")
    # one drop for each patch, `[B, n, m]`
    down, across = (_edges(size, side, step) for size in x.shape[2:])
    n, m = len(down[0]), len(across[0])
    rows = down[0].repeat_interleave(m), down[1].repeat_interleave(m)
    columns = across[0].repeat(n), across[1].repeat(n)
    phi = score_drops(
        model, x, y, rows, columns, fill=fill, output=output, reuse=reuse, chunk=chunk, memory=memory
    ).view(-1, n, m)
    # for each pixel, the mean over the patches that cover it
    r, c = _covers(down, x.shape[2], phi), _covers(across, x.shape[3], phi)
    return (r.T @ phi @ c / torch.outer(r.sum(0), c.sum(0)))[:, None]


def _edges(size: int, side: int, step: int) -> Edges:
    """Return where the patches of one axis begin and end; the last ends at the border of the image."""
    begin = torch.arange(-(-(size - side) // step) + 1) * step
    return begin, (begin + side).clamp(max=size)


def _covers(edges: Edges, size: int, like: Tensor) -> Tensor:
    """Return 1 where a patch of one axis covers a pixel, or else 0, `[patches, size]`."""
    pixel = torch.arange(size)
    return ((pixel >= edges[0][:, None]) & (pixel < edges[1][:, None])).to(like)
