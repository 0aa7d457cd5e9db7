"""The ten trainings of the table for MNIST, and the schedules of a short, a usual and a full run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EPS = 0.3
"""The size of all inner attacks."""


@dataclass(frozen=True)
class Recipe:
    """The training of a network of the table.

    Attributes:
        method: the method of training, by its name in the catalogue.
        options: its options, beside those of the schedule.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _aware(variant: str) -> Recipe:
    return Recipe("interpretability_aware", {"variant": variant, "gamma": 0.01})


RECIPES: dict[str, Recipe] = {
    "normal": Recipe("standard"),
    "adv": Recipe("adversarial"),
    "trades": Recipe("trades", {"beta": 1.0}),
    "ig": Recipe("ig_norm", {"weight": 1.0}),
    "igsum": Recipe("ig_sum_norm", {"weight": 0.1}),
    "intone": _aware("int_one_class"),
    "int": _aware("int"),
    "intadv": _aware("int_adv"),
    "int2": _aware("int2"),
    "int2adv": _aware("int2_adv"),
}
"""The trainings by the names of the published networks."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The length of the trainings.

    Attributes:
        epochs: passes over the training images, by method; `"others"` are the methods that are not named.
        images: number of training images; None takes all 60,000.
        steps: steps of the inner attack.
        step_size: their length; None is the usual one.
        ramp: how eps grows.
        points: points of the integrated gradients, in the loss and in the inner attack.
        rate: the learning rate of Adam, by method like `epochs`.
        change: how it changes, `"cosine"` or `"constant"`.
        batch_size: images in a step.
    """

    epochs: Mapping[str, float]
    images: int | None = None
    steps: int
    step_size: float | None = None
    ramp: tuple[float, float]
    points: tuple[int, int]
    rate: Mapping[str, float]
    change: str
    batch_size: int = 50

    def of(self, method: str) -> dict[str, float]:
        """Return the epochs and the learning rate of a method."""
        both = {"epochs": self.epochs, "rate": self.rate}
        return {name: values.get(method, values["others"]) for name, values in both.items()}

    def options(self, name: str) -> dict[str, Any]:
        """Return the options of a training, by the name of its network."""
        recipe = RECIPES[name]
        if recipe.method == "standard":
            return dict(recipe.options)
        inner = {"eps": EPS, "steps": self.steps, "step_size": self.step_size, "ramp": self.ramp}
        if recipe.method.startswith("ig_"):
            inner |= {"points": self.points[0], "points_of_attack": self.points[1]}
        return {**recipe.options, **inner}


SCHEDULES = {
    "quick": Schedule(
        epochs={"others": 1},
        images=100,
        steps=1,
        ramp=(0.0, 0.5),
        points=(2, 1),
        rate={"others": 1e-3},
        change="constant",
    ),
    "default": Schedule(
        epochs={"ig_norm": 3, "ig_sum_norm": 3, "others": 8},
        steps=5,
        ramp=(0.0625, 0.6),
        points=(5, 1),
        rate={"standard": 2e-3, "others": 1e-3},
        change="cosine",
    ),
    "full": Schedule(
        epochs={"others": 100},
        steps=40,
        step_size=0.01,
        ramp=(1 / 60, 1 / 12),
        points=(50, 10),
        rate={"others": 1e-4},
        change="constant",
    ),
}
"""The schedules by the size of a run; the full one is that of the authors."""
