"""Cross-fitting: apply a universal perturbation to samples that it was not computed from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from underfire.validate import default_generator


def cross_fit_halves(
    y: Tensor, goal: Tensor | None, held_out: bool, generator: Generator | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Split the batch in half, so that each half gets a universal perturbation that is computed from the other half.

    Args:
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`, or None. Every goal has its own perturbation, which is computed from
            samples of other classes.
        held_out: whether to split the batch, at random. If not, and for a single sample, the perturbation is computed
            from all samples.
        generator: source of the split.

    Yields:
        The indices of the samples to compute a perturbation from, the indices of the samples to apply it to, and the
        class to reach or None. If all samples of the other half have the class of the goal, the perturbation is
        computed from the samples that it is applied to.
    """
    order = torch.randperm(len(y), generator=default_generator(generator, y.device), device=y.device)
    halves = order.chunk(2) if held_out else (order,)
    for receivers, sources in zip(halves, reversed(halves), strict=True):
        if goal is None:
            yield sources, receivers, None
            continue
        for wanted in goal[receivers].unique():
            others = sources[y[sources] != wanted]
            pursuers = receivers[goal[receivers] == wanted]
            yield others if len(others) else pursuers, pursuers, wanted
