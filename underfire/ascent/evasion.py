"""The objective of an attack that a detector should not notice."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from underfire.ascent.objectives import Objective, objective
from underfire.ascent.step import Step
from underfire.errors import InputError, Unsupported
from underfire.validate import check_number


class Scores(Protocol):
    """A detector as `evade` needs it, with a score of every input, `[B]`, higher for a suspicious one."""

    def score(self, model: Any, x: Tensor, /) -> Tensor:
        """Return the scores of inputs `x`."""


def evade(detector: Scores, threshold: float, *, slack: float = 0.0) -> Objective:
    """Minimise a detector's score as far as it lies above a threshold: the hinge `max(score - threshold + slack, 0)`.

    A detector whose operations have no gradient must bring one, as `feature_squeezing` does with that of the identity
    for bit depth (BPDA, see `transforms.rounding`).

    Args:
        detector: a fitted detector.
        threshold: the score above which it flags an input, such as `measures.detection.threshold(scores).value`.
        slack: how far below the threshold the score should come. (ADV² wants three quarters of the threshold.)

    Raises:
        Unsupported: in a step, the score has no gradient.

    Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 4.5, for any detector.
    """
    check_number(threshold=threshold, slack=slack)
    if not math.isfinite(threshold) or not slack >= 0:
        raise InputError(f"evade needs a finite threshold and a slack of at least 0, got {threshold} and {slack}")

    def term(step: Step) -> Tensor:
        score = detector.score(step.model, step.x)
        if step.x.requires_grad and torch.is_grad_enabled() and not score.requires_grad:
            raise Unsupported("this detector's score is not differentiable in the input, so no attack can lower it")
        return -(score - (threshold - slack)).clamp_min(0)

    return objective(term)
