"""Measure how much the output for a class drops when a rectangle of the image is replaced, for many rectangles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, fast_memory, resolve_chunk
from underfire.attribution.fills import fill_image
from underfire.attribution.variants import Read, class_output, evaluate_variants, require_finite_outputs
from underfire.hooks import folded, frozen
from underfire.incremental import IncrementalForward, Intervals, NotReusable

Edges = tuple[Tensor, Tensor]
"""The first row (or column) of every rectangle and one past its last, each int64 `[P]`."""


def score_drops(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Edges,
    columns: Edges,
    *,
    fill: str | float = "black",
    output: str = "logit",
    reuse: bool = True,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Return how much the output for class `y` drops when each of `P` rectangles is replaced, `[B, P]`.

    Args:
        rows: the rows that each rectangle covers.
        columns: the columns that each rectangle covers.
        reuse: compute only the activations that a rectangle can have changed (see `underfire.incremental`); without
            effect if the result carries a graph.
        memory: MiB that one layer may read and write for a chunk; without effect if `chunk` is given.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    fill_with, read = fill_image(x, fill), class_output(output)
    size = resolve_chunk(model, x, chunk, memory, gradients=attached)
    with torch.set_grad_enabled(attached):
        if reuse and not attached and len(x) and len(rows[0]):
            try:
                with frozen(model), folded(model, x):
                    room = fast_memory(memory, x.device) * 2**20 if chunk is None else None
                    return _incremental_drops(model, x.detach(), y, rows, columns, fill_with, read, size, room)
            except NotReusable:  # a network whose passes differ gets whole images, below
                pass
        # the first rectangle is empty, which is the image itself
        (top, bottom), (left, right) = (_with_empty(edges, x.device) for edges in (rows, columns))
        row, column = (torch.arange(side, device=x.device) for side in x.shape[2:])

        def make(image: Tensor, rectangle: Tensor) -> Tensor:
            r = (row >= top[rectangle, None]) & (row < bottom[rectangle, None])
            c = (column >= left[rectangle, None]) & (column < right[rectangle, None])
            return torch.where((r[:, :, None] & c[:, None, :])[:, None], fill_with[image], x[image])

        outputs = evaluate_variants(model, x, y, len(top), make, read, chunk=size)
    return outputs[:, :1] - outputs[:, 1:]


def _with_empty(edges: Edges, device: torch.device) -> Edges:
    """Return the edges with the edges of an empty rectangle before them."""
    first, last = (torch.cat([e.new_zeros(1), e]).to(device) for e in edges)
    return first, last


def _incremental_drops(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Edges,
    columns: Edges,
    fill_with: Tensor,
    read: Read,
    size: int,
    room: float | None,
) -> Tensor:
    """Return the drops `[B, P]` by passes that compute only the activations that a rectangle can have changed.

    Args:
        size: number of variants in the first chunk.
        room: bytes that an operation may read and write; later chunks are sized by it. None keeps `size`.
    """
    rectangles = len(rows[0])
    drops, done, needed = [], 0, 1
    while done < len(x):
        # take as many images as make one chunk, or one image in several chunks
        images = slice(done, done + max(size // rectangles, 1))
        known = IncrementalForward(model, x[images])
        read(known.logits[:1].expand(len(x), -1), y)  # check the classes of all images
        whole = read(known.logits, y[images])
        # begin with the rectangles in the middle: they change most activations, and show how many variants fit into
        # `room`
        middle = len(whole) * rectangles // 2
        outputs, index = [], torch.arange(len(whole) * rectangles).roll(-middle)
        while len(index):
            # forward pass of the next chunk
            part, index = index[:size], index[size:]
            image, p = part // rectangles, part % rectangles
            r, c = (
                Intervals(first[p], last[p], side)
                for (first, last), side in ((rows, x.shape[2]), (columns, x.shape[3]))
            )
            logits = known(_patches(x[images], fill_with[images], image, r, c), image, r, c)
            outputs.append(read(logits, y[images][image.to(y.device)]))
            # rectangles take less memory than whole images, so a chunk can have more of them
            if room is not None:
                needed = max(needed, known.needed)
                size = _even(max(len(index), 1), max(int(room // needed), 1))
        drops.append(whole[:, None] - torch.cat(outputs).roll(middle).view(len(whole), rectangles))
        done = images.stop
    return require_finite_outputs(torch.cat(drops))


def _even(total: int, most: int) -> int:
    """Return the size of equal parts of `total`, none larger than `most`."""
    return -(-total // -(-total // most))


def _patches(x: Tensor, fill_with: Tensor, image: Tensor, rows: Intervals, columns: Intervals) -> Tensor:
    """Return the pixels in the windows of the intervals, `[S, C, h, w]`: removed ones are filled, others unchanged."""
    image, device = image.to(x.device), x.device
    i = (rows.start[:, None] + torch.arange(rows.size)).to(device)
    j = (columns.start[:, None] + torch.arange(columns.size)).to(device)
    r = (i >= rows.low.to(device)[:, None]) & (i < rows.high.to(device)[:, None])
    c = (j >= columns.low.to(device)[:, None]) & (j < columns.high.to(device)[:, None])
    place = image[:, None, None], slice(None), i[:, :, None], j[:, None, :]
    removed = (r[:, :, None] & c[:, None, :])[..., None]
    return torch.where(removed, fill_with[place], x[place]).permute(0, 3, 1, 2)
