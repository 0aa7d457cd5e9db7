"""The label smoothing of ADV² (Zhang et al., Interpretable Deep Learning under Fire, 2020, section 3.6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from underfire.ascent.objectives import Objective, cross_entropy, objective
from underfire.ascent.step import Step
from underfire.errors import InputError, Unsupported, shown

Smoothing = float | tuple[float, float]
"""One number, or a pair (first, last) of the largest smoothing, which is drawn anew in every step."""


def smoothed_cross_entropy(smoothing: Smoothing, count: int, steps: int, generator: Generator) -> Objective:
    """Return the objective that minimises the cross-entropy of the goal with smoothed labels.

    One number is a constant smoothing. A pair is that of the paper: in every step and for every sample, the label of
    the goal is drawn from a uniform distribution between 1 - ρ and 1, and the other classes share the rest evenly; ρ
    falls linearly from the first number to the second.

    Args:
        smoothing: the number or the pair.
        count: number of samples.
        steps: number of steps.
        generator: source of the labels; one number draws nothing.

    Raises:
        InputError: the smoothing has another form, or is not in [0, 1).
    """
    if isinstance(smoothing, (int, float)):
        return cross_entropy(smoothing)
    given: Any = smoothing
    numbers = given if isinstance(given, (tuple, list)) else ()
    if len(numbers) != 2 or not all(isinstance(rho, (int, float)) and 0 <= rho < 1 for rho in numbers):
        raise InputError(f"smoothing must be a number in [0, 1) or a pair (first, last) of them, got {shown(given)}")
    first, last = numbers
    # all draws at once, so that a step that is evaluated twice has one label
    draws = torch.rand(steps + 1, count, generator=generator, device=generator.device)

    def term(step: Step) -> Tensor:
        if step.goal is None:
            raise Unsupported("label smoothing needs a goal; use smoothing=0 for an untargeted attack")
        rest = (first + (last - first) * step.progress) * draws[round(step.progress * steps)][step.index]
        log_p = step.logits.log_softmax(1)
        of_goal = log_p.gather(1, step.goal[:, None]).squeeze(1)
        others = (log_p.sum(1) - of_goal) / max(log_p.shape[1] - 1, 1)
        rest = rest.to(log_p)
        return (1 - rest) * of_goal + rest * others

    return objective(term, logits_only=True)
