"""Measure what the loop of all trainings costs in a step of ResNet-20: `python -m benchmarks training-loop`.

What the loop does beside the passes does not depend on the number of images. So it is measured with two images, where
the passes are short, and compared with one forward and backward pass of a batch of 128.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.setting import zoo
from benchmarks.timing import Row, clock, in_turn
from underfire.learning import Average, Shuffled, fit

BATCH, FEW, STEPS, ROUNDS = 128, 2, 15, 3


def measure() -> dict[str, float]:
    """Return seconds: of a step by hand, in the loop, and in the loop with an average, and of the passes of a batch."""
    draws = Generator().manual_seed(0)
    model = zoo("resnet20_cifar10").train()
    sgd = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    x, y = torch.rand(STEPS * FEW, 3, 32, 32, generator=draws), torch.arange(STEPS * FEW) % 10

    def loss(batch: tuple[Tensor, Tensor], _: Generator) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def by_hand() -> None:
        for rows in torch.arange(len(x)).split(FEW):
            sgd.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            sgd.step()

    def loop(**options: Any) -> None:
        fit(model, sgd, Shuffled((x, y), FEW), loss, steps=STEPS, **options)

    contestants = {"by hand": by_hand, "loop": loop, "loop, average": lambda: loop(average=Average())}
    seconds = in_turn(contestants, rounds=ROUNDS, now=clock)
    found = {name: statistics.median(taken) / STEPS for name, taken in seconds.items()}
    images, labels = torch.rand(BATCH, 3, 32, 32, generator=draws), torch.arange(BATCH) % 10

    def passes() -> None:
        F.cross_entropy(model(images), labels).backward()

    return found | {"passes of a batch": statistics.median(in_turn({"passes": passes}, rounds=ROUNDS)["passes"])}


def rows(result: dict[str, float]) -> list[Row]:
    """Return the rows of the table."""
    whole, found = result["passes of a batch"], []
    for name in ("loop", "loop, average"):
        extra = result[name] - result["by hand"]
        value = f"{1e3 * extra:.2f} ms, {extra / whole:.2%} of the passes of {BATCH} images"
        found.append((f"what the {name} adds to a step of ResNet-20", value, "at most 1 %"))
    return found
