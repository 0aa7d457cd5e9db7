"""The evolution strategy of attacks on a black box that returns logits and maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.answers import explained_answers
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Interpreter
from underfire.ascent.score_based import Aim, ascend_from_scores
from underfire.ascent.step import Step
from underfire.ascent.threats import ball
from underfire.domains import domain_of
from underfire.errors import InputError
from underfire.gradients.estimators import gaussian, latin_hypercube
from underfire.validate import at_least_one


def evolve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    interpreter: Interpreter | None,
    begin: Callable[[Step], Aim],
    goal: Tensor | None,
    norm: str,
    eps: float | Tensor,
    queries: int | Tensor,
    samples: int,
    sigma: float,
    latin: bool,
    step_size: float | Tensor | None,
    move: Move | None,
    chunk: int,
    generator: Generator | None,
) -> Tensor:
    """Estimate gradients from pairs of queries that return logits and maps; return the best iterate of every sample.

    The steps fall linearly to a tenth of their first length. `attacks.adv2_black_box` explains the other arguments.

    Args:
        begin: a function from the first step, which has the output for the clean images, to the aim of the attack.

    Raises:
        InputError: an argument is out of its range. OracleError: the model failed; the error's `found` holds the best
            images so far.

    Source: Tamam, Lapid and Sipper, Foiling Explanations in Deep Neural Networks, TMLR 2023, with a bound on the
        perturbation, and with directions whose standard deviation stays as it is.
    """
    at_least_one(samples=samples, chunk=chunk)
    if not 0 < sigma < float("inf"):
        raise InputError(f"sigma must be > 0 and finite, got {sigma}")
    threat = ball(norm, eps, among=("linf", "l2")).in_domain(domain_of(model))
    threat.check(x)
    with explained_answers(model, interpreter) as answer:
        return ascend_from_scores(
            model,
            x,
            y,
            threat,
            latin_hypercube(sigma) if latin else gaussian(sigma),
            queries=queries,
            pairs=samples,
            step_size=torch.as_tensor(eps) / 5 if step_size is None else step_size,
            goal=goal,
            move=move,
            begin=begin,
            keep="best",
            answer=answer,
            last_step=0.1,
            generator=generator,
            chunk=chunk,
        )
