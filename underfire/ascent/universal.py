"""Cross-fitting: apply a universal change to samples that it was not made from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from underfire.validate import default_generator


def cross_fit_halves(
    y: Tensor, goal: Tensor | None, held_out: bool, generator: Generator | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield the samples to make a universal change from and those to apply it to, until every sample has a change.

    Args:
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`, or None; every goal has its own change, made from samples of other classes.
        held_out: whether the batch is split at random, and the change of each half made from the other half. If not,
            and for a single sample, the change is made from all samples.
        generator: source of the split.

    Yields:
        The samples to make a change from, the samples to apply it to, and the class to reach or None. If all samples of
        the other half have the class of the goal, the change is made from the samples that it is applied to.
    """
    order = torch.randperm(len(y), generator=default_generator(generator, y.device), device=y.device)
    halves = order.chunk(2) if held_out else (order,)
    for used, made in zip(halves, reversed(halves), strict=True):
        if goal is None:
            yield made, used, None
            continue
        for wanted in goal[used].unique():
            others = made[y[made] != wanted]
            those = used[goal[used] == wanted]
            yield others if len(others) else those, those, wanted
