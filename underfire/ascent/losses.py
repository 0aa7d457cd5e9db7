"""Objectives made of functions of the caller: of a step, or losses of torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from underfire.ascent.objectives import Objective, objective
from underfire.ascent.step import Step
from underfire.errors import InputError


def as_objective(given: Objective | Callable[..., Tensor]) -> Objective:
    """Return an objective that maximises `given`.

    Args:
        given: an `Objective`; a function `step -> [B]` (see `Step`); or a loss `(logits, classes) -> [B]`, such as
            `torch.nn.CrossEntropyLoss(reduction="none")`: the loss of `y` is made large, and with a goal, that of the
            goal small.

    Raises:
        InputError: `given` is not a function, or on a call, it does not return one value per sample.
    """
    if isinstance(given, Objective):
        return given
    if not callable(given):
        raise InputError(f"objective must be an Objective, a function of a step or a loss, got {given!r:.80}")
    is_loss = _required(given) > 1

    def term(step: Step) -> Tensor:
        classes = step.y if step.goal is None else step.goal
        value: Any = given(step.logits, classes) if is_loss else given(step)
        if not isinstance(value, Tensor) or value.shape != (len(step.x),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            advice = "a loss of torch does with reduction='none'"
            raise InputError(f"objective must return one value per sample [{len(step.x)}], as {advice}, got {got}")
        return value if step.goal is None or not is_loss else -value

    return objective(term, logits_only=is_loss)


def _required(function: Callable[..., Any]) -> int:
    """Return the number of positional arguments that a function needs; 1 if its signature is not known."""
    try:
        found = inspect.signature(function.forward if isinstance(function, nn.Module) else function).parameters
    except ValueError:  # a function of a compiled module
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in found.values())
