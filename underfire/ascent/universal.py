"""One change for many images, used on images that it was not made from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor


def cross_fit_halves(
    y: Tensor, goal: Tensor | None, held_out: bool, generator: Generator | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """What each universal change is made from and what it is used on, so that all samples get one.

    Args:
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`; every class has a change of its own, made from images of other classes.
        held_out: split the batch at random, and make the change of each half from the other; else, and for a single
            image, all are made from all.
        generator: source of the split.

    Yields:
        The samples to make a change from, those to use it on, and the class to reach, a number, or None. (Where nothing
        of the other half has another class than the goal, it is made from those that it is used on.)
    """
    order = torch.randperm(len(y), generator=generator, device=y.device)
    halves = order.chunk(2) if held_out else (order,)
    for used, made in zip(halves, reversed(halves), strict=True):
        if goal is None:
            yield made, used, None
            continue
        for wanted in goal[used].unique():
            others = made[y[made] != wanted]
            those = used[goal[used] == wanted]
            yield others if len(others) else those, those, wanted
