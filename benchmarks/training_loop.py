"""Measure what the loop of all trainings costs beside the forward and backward passes, on ResNet-20."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.setting import cifar10, zoo
from benchmarks.timing import Row, in_turn, ratio, spread
from underfire.learning import Average, Shuffled, fit

BATCH = 128
#: Steps in each round, and the number of rounds.
STEPS, ROUNDS = 2, 5


def measure() -> dict[str, Any]:
    """Time steps of SGD in the loop, and the forward and backward passes of the same batches."""
    batch = cifar10()[: STEPS * BATCH]
    x, y = batch.x, batch.y
    model = zoo("resnet20_cifar10").train()
    sgd = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)

    def loss(batch: tuple[Tensor, Tensor], _: Generator) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def passes() -> None:
        for rows in torch.arange(len(x)).split(BATCH):
            model.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()

    def loop(**options: Any) -> None:
        fit(model, sgd, Shuffled((x, y), BATCH), loss, steps=STEPS, **options)

    contestants = {"passes": passes, "loop": loop, "loop, average": lambda: loop(average=Average())}
    seconds = in_turn(contestants, rounds=ROUNDS)
    below = seconds.pop("passes")
    return {"batch": BATCH, "over the passes": {name: ratio(taken, below) for name, taken in seconds.items()}}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row for the loop, and one for the loop with an average of the weights."""
    what = f"training of ResNet-20, batches of {found['batch']}"
    names = {"loop": "a step of the loop with SGD", "loop, average": "the same with an average of the weights"}
    return [
        (f"{what}, {names[name]}: forward+backward passes", spread(value, 3), "≤ 1.01")
        for name, value in found["over the passes"].items()
    ]
