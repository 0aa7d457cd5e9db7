"""The report of a training after a step, and its outcome at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Report:
    """The state of a training after a step.

    Attributes:
        step: number of steps done.
        steps: number of all steps.
        losses: the mean loss of each objective in this step, without a graph.
        rate: learning rate of the step, that of the first group of parameters.
        metrics: what `validate` returned after this step; empty after other steps.
        notes: what the guards noticed after this step, each a sentence.
    """

    step: int
    steps: int
    losses: tuple[Tensor, ...]
    rate: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The end of a training.

    Attributes:
        steps: number of steps done.
        stopped: whether a guard ended it before its last step.
        notes: what the guards noticed since the training was started or continued.
    """

    steps: int
    stopped: bool
    notes: tuple[str, ...]
