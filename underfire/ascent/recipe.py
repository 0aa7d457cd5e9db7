"""A `Recipe`: the parts of an attack with a given eps, which `ascend` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from underfire.ascent import moves
from underfire.ascent.losses import as_objective
from underfire.ascent.moves import Move
from underfire.ascent.objective import Objective
from underfire.ascent.step import Step
from underfire.ascent.step_rules import StepRule, StepSize
from underfire.ascent.threats import Threat
from underfire.errors import InputError, Unsupported
from underfire.gradients import estimators, smoothing, views
from underfire.gradients.backward import Backward, true_gradient

Keep = Literal["last", "best", "success"]
Rank = Callable[[Step, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """The parts of an attack with a given eps: what it maximises, what it may change, and how it moves.

    Attributes:
        objective: the function that the attack maximises; a function `step -> [B]` or a loss `(logits, y) -> [B]` is
            made an `Objective`.
        threat: what may change, and by how much.
        step_rule: the rule that sets the length of every step. A number, one number per sample `[B]` or a schedule
            `(step, steps) -> size` is this length itself, in the threat's norm.
        views: the transformed images over which the objective is averaged.
        estimate: the estimator of the gradient.
        smooth: the smoothing that is applied to the gradient before the move uses it.
        backward: the rule by which the network passes gradients back, in all passes of the attack.
        move: turns the gradient into a direction, with a memory.
        keep: which iterate is returned. `"last"` is the last one. `"best"` is the best one: a success before any
            failure, then the larger objective (with the weights of the last step, if they change). `"success"` is the
            first success, after which the sample costs nothing more; a sample without a success gets its best iterate.
        rank: `(step, value) -> [B]`, a score that replaces the objective where two successes or two failures compete.
    """

    objective: Objective
    threat: Threat
    step_rule: StepRule | StepSize
    views: views.View = views.identity
    estimate: estimators.Estimator = estimators.autograd
    smooth: smoothing.Smoothing = smoothing.none
    backward: Backward = true_gradient
    move: Move = moves.plain()  # noqa: RUF009  a Move is frozen
    keep: Keep = "best"
    rank: Rank | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", as_objective(self.objective))

    def check(self, x: Tensor) -> None:
        """Raise an error unless the recipe fits the clean images `x`."""
        self.threat.check(x)
        if self.keep not in get_args(Keep):
            raise Unsupported(f"keep={self.keep!r} is unknown; choices: {', '.join(get_args(Keep))}")
        size = self.step_rule
        if isinstance(size, StepRule) or callable(size):
            return
        if isinstance(size, Tensor) and size.shape not in ((), (len(x),)):
            raise InputError(f"step_size must be one number or one per sample [{len(x)}], got {tuple(size.shape)}")
        if not bool(torch.isfinite(torch.as_tensor(size)).all()):
            raise InputError(f"step_size must be finite, got {size}")
