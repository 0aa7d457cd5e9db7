"""Finite differences (Bhagoji et al., Practical Black-Box Attacks on Deep Neural Networks, ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.score_based import ascend_from_scores
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.gradients.estimators import grouped
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Bhagoji, He, Li and Song, Practical Black-Box Attacks on Deep Neural Networks Using Efficient Query "
    "Mechanisms, ECCV 2018",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"queries": 100},
)
def finite_differences(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 10_000,
    steps: int = 10,
    step_size: float | Tensor | None = None,
    step: float = 0.01,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Take gradient steps along finite differences of scores, for single entries or for random groups of entries.

    With enough queries every entry is probed by itself: `steps=1` and `2 * d + 2` queries for `d` entries are FGSM by
    finite differences. With fewer queries, entries are probed in groups, just large enough that the queries last for
    all steps.

    Args:
        step_size: None is `2.5 * eps / steps`.
        step: distance of a probe from the image; the default is the paper's.

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    at_least_one(steps=steps)
    if step <= 0:
        raise InputError(f"step must be > 0, got {step}")
    return ascend_from_scores(
        model,
        x,
        y,
        ball(norm, eps, among=("linf", "l2")),
        grouped(step),
        queries=queries,
        # Each step may cost the same share of the queries: one for the new iterate, and two for each pair of probes.
        pairs=((torch.as_tensor(queries, device=x.device) - 1) // steps - 1)
        .div(2, rounding_mode="floor")
        .clamp(1, max(1, x[:1].numel())),
        step_size=torch.as_tensor(eps) * (2.5 / steps) if step_size is None else step_size,
        goal=goal,
        steps=steps,
        generator=generator,
        chunk=chunk,
    )
