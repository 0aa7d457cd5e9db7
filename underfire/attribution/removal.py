"""Measure how much the outputs of a network drop when a rectangle of the image is replaced, for many rectangles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, fast_memory, resolve_chunk
from underfire.attribution.fills import fill_image
from underfire.attribution.scores import class_score
from underfire.attribution.variants import Read, class_output, evaluate_variants, require_finite_outputs
from underfire.hooks import folded, frozen
from underfire.incremental import IncrementalForward, Intervals, NotReusable

Edges = tuple[Tensor, Tensor]
"""The first row (or column) of every rectangle and one past its last, each int64 `[P]`."""


def score_drops(
    model: nn.Module, x: Tensor, y: Tensor, rows: Edges, columns: Edges, *, output: str = "logit", **options: Any
) -> Tensor:
    """Return how much the output for class `y` drops when each of `P` rectangles is replaced, `[B, P]`.

    Args:
        rows: the rows that each rectangle covers.
        columns: the columns that each rectangle covers.
        output: `"logit"` or `"probability"`.
        options: those of `output_drops`.
    """
    return output_drops(model, x, y, rows, columns, read=class_output(output), **options)


def output_drops(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Edges,
    columns: Edges,
    *,
    read: Read,
    channels: Tensor | None = None,
    fill: str | float = "black",
    reuse: bool = True,
    chunk: int | None = None,
    memory: float = MEMORY,
) -> Tensor:
    """Return how much the values that `read` keeps drop when each of `P` rectangles is replaced, `[B, P, ...]`.

    Args:
        rows: the rows that each rectangle covers.
        columns: the columns that each rectangle covers.
        read: see `variants.Read`; it may also read what hooks kept of the latest pass.
        channels: the only channel that each rectangle replaces, int64 `[P]`; None replaces all channels.
        reuse: compute only the activations that a rectangle can have changed (see `underfire.incremental`); without
            effect if the result carries a graph.
        memory: MiB that one layer may read and write for a chunk; without effect if `chunk` is given.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    fill_with = fill_image(x, fill)
    size = resolve_chunk(model, x, chunk, memory, gradients=attached)
    removal = _Removal(rows, columns, channels, fill_with)
    with torch.set_grad_enabled(attached):
        if reuse and not attached and len(x) and len(rows[0]):
            try:
                with frozen(model), folded(model, x):
                    room = fast_memory(memory, x.device) * 2**20 if chunk is None else None
                    return _incremental_drops(model, x.detach(), y, removal, read, size, room)
            except NotReusable:  # a network whose passes differ gets whole images, below
                pass
        # the first rectangle is empty, which is the image itself
        (top, bottom), (left, right) = (_with_empty(edges, x.device) for edges in (rows, columns))
        row, column = (torch.arange(side, device=x.device) for side in x.shape[2:])

        def make(image: Tensor, rectangle: Tensor) -> Tensor:
            r = (row >= top[rectangle, None]) & (row < bottom[rectangle, None])
            c = (column >= left[rectangle, None]) & (column < right[rectangle, None])
            removed = (r[:, :, None] & c[:, None, :])[:, None]
            if channels is not None:
                removed = removed & removal.of_channel((rectangle - 1).clamp(min=0), x)[:, :, None, None]
            return torch.where(removed, fill_with[image], x[image])

        outputs = evaluate_variants(model, x, y, len(top), make, read, chunk=size)
    return outputs[:, :1] - outputs[:, 1:]


@dataclass(frozen=True)
class _Removal:
    """The replaced parts: rectangles, of all channels or of one each, and the image that replaces them."""

    rows: Edges
    columns: Edges
    channels: Tensor | None
    fill_with: Tensor

    def of_channel(self, rectangle: Tensor, x: Tensor) -> Tensor:
        """Return which channels the rectangles replace, bool `[n, C]`."""
        assert self.channels is not None
        wanted = self.channels.to(x.device)[rectangle.to(x.device)]
        return wanted[:, None] == torch.arange(x.shape[1], device=x.device)

    def patches(
        self, x: Tensor, images: slice, image: Tensor, rectangle: Tensor, rows: Intervals, columns: Intervals
    ) -> Tensor:
        """Return the pixels in the windows of the intervals, `[S, C, h, w]`: removed ones are filled."""
        x, fill_with, device = x[images], self.fill_with[images], x.device
        image = image.to(device)
        i = (rows.start[:, None] + torch.arange(rows.size)).to(device)
        j = (columns.start[:, None] + torch.arange(columns.size)).to(device)
        r = (i >= rows.low.to(device)[:, None]) & (i < rows.high.to(device)[:, None])
        c = (j >= columns.low.to(device)[:, None]) & (j < columns.high.to(device)[:, None])
        place = image[:, None, None], slice(None), i[:, :, None], j[:, None, :]
        removed = (r[:, :, None] & c[:, None, :])[..., None]
        if self.channels is not None:
            removed = removed & self.of_channel(rectangle, x)[:, None, None]
        return torch.where(removed, fill_with[place], x[place]).permute(0, 3, 1, 2)


def _with_empty(edges: Edges, device: torch.device) -> Edges:
    """Return the edges with the edges of an empty rectangle before them."""
    first, last = (torch.cat([e.new_zeros(1), e]).to(device) for e in edges)
    return first, last


def _incremental_drops(
    model: nn.Module, x: Tensor, y: Tensor, removal: _Removal, read: Read, size: int, room: float | None
) -> Tensor:
    """Return the drops `[B, P, ...]` by passes that compute only the activations that a rectangle can have changed.

    Args:
        size: number of variants in the first chunk.
        room: bytes that an operation may read and write; later chunks are sized by it. None keeps `size`.
    """
    rectangles = len(removal.rows[0])
    drops, done, needed = [], 0, 1
    while done < len(x):
        # take as many images as make one chunk, or one image in several chunks
        images = slice(done, done + max(size // rectangles, 1))
        known = IncrementalForward(model, x[images])
        class_score(known.logits[:1].expand(len(x), -1), y)  # check the classes of all images
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
                for (first, last), side in ((removal.rows, x.shape[2]), (removal.columns, x.shape[3]))
            )
            logits = known(removal.patches(x, images, image, p, r, c), image, r, c)
            outputs.append(read(logits, y[images][image.to(y.device)]))
            # rectangles take less memory than whole images, so a chunk can have more of them
            if room is not None:
                needed = max(needed, known.needed)
                size = _even(max(len(index), 1), max(int(room // needed), 1))
        changed = torch.cat(outputs).roll(middle, 0).unflatten(0, (len(whole), rectangles))
        drops.append(whole[:, None] - changed)
        done = images.stop
    return require_finite_outputs(torch.cat(drops))


def _even(total: int, most: int) -> int:
    """Return the size of equal parts of `total`, none larger than `most`."""
    return -(-total // -(-total // most))
