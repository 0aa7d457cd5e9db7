"""Cross-fitting: use a universal change on samples that it was not made from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from underfire.validate import default_generator


def cross_fit_halves(
    y: Tensor, goal: Tensor | None, held_out: bool, generator: Generator | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield the samples that a universal change is made from and those that it is used on, until all have one.

    Args:
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`; every class has its own change, made from samples of other classes.
        held_out: split the batch at random, and make the change of each half from the other half. Otherwise, and for
            a single sample, the change is made from all.
        generator: source of the split.

    Yields:
        The samples to make a change from, the samples to use it on, and the class to reach or None. If all samples of
        the other half have the class of the goal, the change is made from the samples that it is used on.
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
