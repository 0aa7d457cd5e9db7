"""SPSA (Uesato et al., Adversarial Risk and the Dangers of Evaluating Against Weak Attacks, ICML 2018)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.moves import adam
from underfire.ascent.score_based import ascend_from_scores
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.gradients.estimators import rademacher
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Uesato, O'Donoghue, van den Oord and Kohli, Adversarial Risk and the Dangers of Evaluating Against Weak "
    "Attacks, ICML 2018",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"queries": 100, "samples": 10},
)
def spsa(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 10_000,
    step_size: float | Tensor | None = None,
    samples: int = 128,
    step: float = 0.01,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Run Adam along gradients estimated from the scores at random corners of a small cube around the image.

    The paper bounds the L-infinity norm; for L2 (ours) Adam's direction is scaled to the length of the step.

    Args:
        step_size: None is `eps / 4`, about the paper's 0.01 at its eps of 8/255.
        samples: number of corners per estimate; each is queried together with the opposite corner.
        step: half the side of the cube.

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    at_least_one(samples=samples)
    if step <= 0:
        raise InputError(f"step must be > 0, got {step}")
    return ascend_from_scores(
        model,
        x,
        y,
        ball(norm, eps, among=("linf", "l2")),
        rademacher(step),
        queries=queries,
        pairs=samples,
        step_size=torch.as_tensor(eps) / 4 if step_size is None else step_size,
        goal=goal,
        move=replace(adam(), steepest=norm == "l2"),
        generator=generator,
        chunk=chunk,
    )
