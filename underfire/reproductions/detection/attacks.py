"""Attack images part by part, with the goals that studies of detectors use, and keep the results in the work folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from underfire.attacks.illc import least_likely
from underfire.catalog import find
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Progress

Goal = Literal["", "next", "least likely"]
_PART = 25  # images that are attacked at once: an interrupted run loses one part


@dataclass(frozen=True)
class Attack:
    """An attack of the catalogue with its options.

    Attributes:
        name: its name in the catalogue.
        options: its options.
        goal: no goal, the class after the label, or the class that the model finds least likely.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    goal: Goal = ""

    def spec(self) -> dict[str, Any]:
        """Return the attack as plain values."""
        return {"name": self.name, **self.options} | ({"goal": self.goal} if self.goal else {})

    def goal_of(self, model: Classifier, batch: Batch) -> Tensor | None:
        """Return the goal of each image, int64 `[B]`; None if the attack has none."""
        if not self.goal:
            return None
        if self.goal == "next":
            return (batch.y + 1) % model.predict(batch.x[:1]).shape[1]
        with torch.no_grad():
            return least_likely(model, batch.x, batch.y)


@dataclass(frozen=True)
class Attacked:
    """Images after an attack.

    Attributes:
        x: the images, `[B, C, H, W]`.
        success: whether the model predicts the goal, or without a goal a wrong class, bool `[B]`.
    """

    x: Tensor
    success: Tensor


def attacked(attack: Attack, model: Classifier, batch: Batch, label: str, store: Store, progress: Progress) -> Attacked:
    """Attack images that the model classifies correctly; parts that an earlier run has finished are read."""
    run: Callable[..., Tensor] = find("attack", attack.name).function

    def compute(part: Batch) -> Tensor:
        return run(model, part.x, part.y, goal=attack.goal_of(model, part), **attack.options)

    x = store.in_parts(label, batch, _PART, compute, progress)
    predicted, goal = model.predict(x).argmax(1), attack.goal_of(model, batch)
    return Attacked(x, (predicted != batch.y) if goal is None else (predicted == goal))


def correct(model: Classifier, batch: Batch, most: int) -> Batch:
    """Return the first images that the model classifies correctly, at most `most`."""
    right = (model.predict(batch.x).argmax(1) == batch.y).nonzero().flatten()
    return batch.take(right[:most].cpu())
