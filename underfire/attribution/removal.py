"""What the class loses when a rectangle of the image is filled in, for many rectangles: occlusion and leave-one-out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY, chunk_within, fast_memory
from underfire.attribution.variants import answers, class_answer, fill_image, finite
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.incremental.intervals import Intervals
from underfire.incremental.passes import IncrementalForward, NotReusable

Edges = tuple[Tensor, Tensor]
"""First row or column of every rectangle and one past the last, each int64 `[P]`."""


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
    """How much lower the answer for class `y` is without each rectangle, `[B, P]`.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class of each, int64 `[B]`.
        rows: of the rectangles.
        columns: of the rectangles.
        fill: what stands in them (see `asking.fill_image`).
        output: `"logit"` or `"probability"`.
        reuse: compute only what a rectangle can have changed (see `hooks.reuse`), where no graph is wanted.
        chunk: how many changed images go through the model at once; None is what suits.
        memory: what a layer may read and write for one chunk, in MiB, where no `chunk` is given.
    """
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1 image, got {chunk}")
    attached = torch.is_grad_enabled() and x.requires_grad
    instead = fill_image(x, fill)
    with torch.set_grad_enabled(attached):
        if reuse and not attached and len(x):
            try:
                with frozen(model):
                    return _by_reuse(model, x.detach(), y, rows, columns, instead, output, chunk, memory)
            except NotReusable:  # a network that is not the same each time goes through as a whole
                pass
        (top, bottom), (left, right) = (_with_nothing(edges, x.device) for edges in (rows, columns))
        down, across = (torch.arange(size, device=x.device) for size in x.shape[2:])

        def show(image: Tensor, look: Tensor) -> Tensor:
            r = (down >= top[look, None]) & (down < bottom[look, None])
            c = (across >= left[look, None]) & (across < right[look, None])
            return torch.where((r[:, :, None] & c[:, None, :])[:, None], instead[image], x[image])

        found = answers(model, x, y, len(top), show, output=output, chunk=chunk, memory=memory)
    return found[:, :1] - found[:, 1:]


def _with_nothing(edges: Edges, device: torch.device) -> Edges:
    """With an empty rectangle in front, that is, the image itself."""
    first, last = (torch.cat([e.new_zeros(1), e]).to(device) for e in edges)
    return first, last


def _by_reuse(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    rows: Edges,
    columns: Edges,
    instead: Tensor,
    output: str,
    chunk: int | None,
    memory: float,
) -> Tensor:
    """The drops, `[B, P]`: as many whole images at a time as make a chunk, or the rectangles of one in several."""
    positions = len(rows[0])
    size = chunk if chunk is not None else chunk_within(model, x, memory, gradients=False)
    room = fast_memory(memory, x.device) * 2**20
    made, done, needed = [], 0, 1
    while done < len(x):
        images = slice(done, done + max(size // positions, 1))
        known = IncrementalForward(model, x[images])
        whole = class_answer(known.logits[:1].expand(len(x), -1), y, output)  # raises where y does not fit
        whole = class_answer(known.logits, y[images], output)
        # The middle comes first: there a rectangle reaches most, which tells how many of them fit.
        middle = len(whole) * positions // 2
        parts, place = [], torch.arange(len(whole) * positions).roll(-middle)
        while len(place):
            now, place = place[:size], place[size:]
            image, p = now // positions, now % positions
            r, c = (Intervals(first[p], last[p], n) for (first, last), n in ((rows, x.shape[2]), (columns, x.shape[3])))
            patch = _rectangles(x[images], instead[images], image, r, c)
            logits = known(patch, image, r, c)
            parts.append(class_answer(logits, y[images][image.to(y.device)], output))
            if chunk is None:  # rectangles take less than whole images do, so more of them go at once
                needed = max(needed, known.needed)
                size = _even(max(len(place), 1), max(int(room // needed), 1))
        made.append(whole[:, None] - torch.cat(parts).roll(middle).view(len(whole), positions))
        done = images.stop
    return finite(torch.cat(made))


def _even(total: int, most: int) -> int:
    """The size of equal parts of `total`, none larger than `most`."""
    return -(-total // -(-total // most))


def _rectangles(x: Tensor, instead: Tensor, image: Tensor, rows: Intervals, columns: Intervals) -> Tensor:
    """What the windows of the spans show, `[S, C, h, w]`: the fill where something is removed, else the image."""
    image, device = image.to(x.device), x.device
    i = (rows.start[:, None] + torch.arange(rows.size)).to(device)
    j = (columns.start[:, None] + torch.arange(columns.size)).to(device)
    r = (i >= rows.low.to(device)[:, None]) & (i < rows.high.to(device)[:, None])
    c = (j >= columns.low.to(device)[:, None]) & (j < columns.high.to(device)[:, None])
    place = image[:, None, None], slice(None), i[:, :, None], j[:, None, :]
    removed = (r[:, :, None] & c[:, None, :])[..., None]
    return torch.where(removed, instead[place], x[place]).permute(0, 3, 1, 2)
