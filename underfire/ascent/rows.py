"""Try several classes of one sample side by side, as rows `(sample, class)`, within a bound on the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


@torch.no_grad()
def in_parts(model: nn.Module, x: Tensor, chunk: int | None) -> Tensor:
    """Return logits `[B, K]`, computed for at most `chunk` inputs at once; None is all of them."""
    return torch.cat([model(part) for part in x.split(chunk or max(len(x), 1))])


def likeliest_others(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """Return the `count` likeliest classes other than `y`, likeliest first, int64 `[B, k]`; `k` is at most `K - 1`."""
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def class_by_class(classes: Tensor, chunk: int, done: Callable[[], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield samples and classes, int64 `[M]` each, until every sample is done or has had all its classes.

    The first class comes alone, since it succeeds most often. Of the other classes as many are tried at once as fit
    into `chunk` rows, so that the batches stay large when only few samples are left.

    Args:
        classes: the classes of each sample in the order they are tried, int64 `[B, k]`.
        chunk: how many rows at once.
        done: returns which samples need no more rows, bool `[B]`; it is called before every yield.
    """
    column = 0
    while column < classes.shape[1]:
        index = (~done()).nonzero().squeeze(1)
        if len(index) == 0:
            return
        width = 1 if column == 0 else max(1, chunk // len(index))
        tried = classes[index, column : column + width]
        samples = index.repeat_interleave(tried.shape[1])
        for rows in torch.arange(len(samples), device=classes.device).split(chunk):
            rows = rows[~done()[samples[rows]]]
            if len(rows):
                yield samples[rows], tried.flatten()[rows]
        column += width


def best_row(index: Tensor, value: Tensor) -> Tensor:
    """Return the row with the largest value for each sample in `index` `[M]`, int64; samples in ascending order."""
    # sort the rows by value, and take the first row of each sample
    order = value.argsort(descending=True, stable=True)
    samples, belongs = index[order].unique(return_inverse=True)
    places = torch.arange(len(order), device=index.device)
    first = torch.full_like(samples, len(order)).scatter_reduce(0, belongs, places, "amin")
    return order[first]
