"""Time contestants in turn and compute a ratio in every round, so that a drift of the machine's speed cancels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.hooks import frozen

Row = tuple[str, str, str]
"""The name of a measurement, its value, and its target."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: a measurement, and how it is shown.

    Attributes:
        measure: runs the measurement and returns its numbers.
        rows: returns the rows of the table for these numbers.
        images: the image sets of the measurement, names in `setting.IMAGES`.
    """

    measure: Callable[[], dict[str, Any]]
    rows: Callable[[dict[str, Any]], list[Row]]
    images: tuple[str, ...] = ()


def one_unit(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a function that passes the images forward and backward once: the unit in which attacks are measured."""

    def unit() -> None:
        with frozen(model):
            point = x.clone().requires_grad_(True)
            torch.autograd.grad(nn.functional.cross_entropy(model(point), y, reduction="sum"), point)

    return unit


def clock() -> float:
    """Return the seconds of the processor, which other programs do not lengthen; of several threads, those of the wall.

    The processor's seconds of several threads are a sum.
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def in_turn(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int = 5, now: Callable[[], float] = clock
) -> dict[str, list[float]]:
    """Return the seconds of every contestant in every round, by the clock `now`; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            start = now()
            contestant()
            if turn:
                seconds[name].append(now() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Return the median, smallest and largest ratio over the rounds."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def spread(value: Mapping[str, float], places: int = 2) -> str:
    """Format a median with the smallest and the largest value."""
    return f"{value['median']:.{places}f} ({value['min']:.{places}f} to {value['max']:.{places}f})"
