"""NES (Ilyas et al., Black-box Adversarial Attacks with Limited Queries and Information, ICML 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.score_based import ascend_from_scores
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.errors import InputError
from underfire.gradients.estimators import gaussian
from underfire.validate import at_least_one


@card(
    "attack",
    paper="Ilyas, Engstrom, Athalye and Lin, Black-box Adversarial Attacks with Limited Queries and Information, "
    "ICML 2018",
    domains=ADDITIVE,
    knowledge="black-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.001",
    quick={"queries": 100, "samples": 10},
)
def nes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 8 / 255,
    queries: int | Tensor = 10_000,
    step_size: float | Tensor | None = None,
    samples: int = 50,
    sigma: float = 1e-3,
    chunk: int = 128,
    generator: Generator | None = None,
) -> Tensor:
    """Take projected steps along gradients that natural evolution strategies estimate from scores.

    This is the paper's query-limited attack, on the margin instead of the cross-entropy, whose gradient vanishes on a
    confident model.

    Args:
        step_size: None is `eps / 5`, the paper's ratio.
        samples: number of random directions per estimate; each is queried forwards and backwards.
        sigma: standard deviation of the entries of a direction. (A model in half precision needs a larger one.)

    Raises:
        OracleError: the model failed; the error's `found` holds the best images so far.
    """
    at_least_one(samples=samples)
    if not 0 < sigma < float("inf"):
        raise InputError(f"sigma must be > 0 and finite, got {sigma}")
    return ascend_from_scores(
        model,
        x,
        y,
        ball(norm, eps, among=("linf", "l2")),
        gaussian(sigma),
        queries=queries,
        pairs=samples,
        step_size=torch.as_tensor(eps) / 5 if step_size is None else step_size,
        goal=goal,
        generator=generator,
        chunk=chunk,
    )
