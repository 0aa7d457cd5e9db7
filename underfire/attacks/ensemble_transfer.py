"""Ensemble attack (Liu et al., Delving into Transferable Adversarial Examples and Black-box Attacks, ICLR 2017)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.loop import Keep, Recipe, ascend
from underfire.ascent.objective import Prepared, Start, Term, objective
from underfire.ascent.objectives import log_success
from underfire.ascent.step import Step
from underfire.ascent.threats import ball
from underfire.catalog import card
from underfire.domains import ADDITIVE
from underfire.model import Ensemble
from underfire.validate import at_least, at_least_one


@card(
    "attack",
    paper="Liu, Chen, Liu and Song, Delving into Transferable Adversarial Examples and Black-box Attacks, ICLR 2017",
    knowledge="white-box",
    norms=("linf", "l2"),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    domains=ADDITIVE,
)
def ensemble_transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 100,
    step_size: float | Tensor = 8 / 255,
    distance_weight: float = 0.0,
    keep: Keep = "last",
    mask: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Maximise the mean probability of a success over the sources of an ensemble, by Adam.

    The objective is `log(1 - p_y)`, or `log p` of the goal, minus `distance_weight` times the distance; `p` is the
    weighted mean of the sources' probabilities, whatever the `fuse` of the ensemble. A model that is not an ensemble is
    one source.

    Args:
        eps: largest change (ours; the paper bounds the change by the weight of the distance alone).
        step_size: Adam's step size; the paper has 8 of 255 levels. One Adam follows the gradient of the whole ensemble
            (ours; the paper adds the updates of one Adam for each source).
        distance_weight: factor of the root of the mean squared change, in units of the input; the paper's lambda.
    """
    at_least_one(steps=steps)
    at_least(0, distance_weight=distance_weight)
    sources = model.fused_by("probabilities") if isinstance(model, Ensemble) else model
    aim = log_success() - distance_weight * objective(Prepared(_distance)) if distance_weight else log_success()
    recipe = Recipe(aim, ball(norm, eps, mask, among=("linf", "l2")), step_rule=step_size, move=moves.adam(), keep=keep)
    return ascend(sources, x, y, recipe, steps=steps, goal=goal, generator=generator)


def _distance(start: Start) -> Term:
    """Return the term `sqrt(mean((x' - x)^2))`; where nothing has changed, its gradient is zero."""

    def term(step: Step) -> Tensor:
        square = (step.x_adv - start.x[step.index]).square().flatten(1).mean(1)
        return torch.where(square > 0, square, 1).sqrt() * (square > 0)

    return term
