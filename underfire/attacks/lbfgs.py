"""The L-BFGS attack (Szegedy et al., Intriguing Properties of Neural Networks, ICLR 2014)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.nearest import Nearest, evaluate_clean
from underfire.ascent.objectives import cross_entropy
from underfire.ascent.quasi_newton import QuasiNewton
from underfire.ascent.step import Targets, succeeded, value_and_grad
from underfire.catalog import card
from underfire.domains import ADDITIVE, domain_of
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.validate import at_least_one, per_sample


@card(
    "attack",
    paper="Szegedy, Zaremba, Sutskever, Bruna, Erhan, Goodfellow and Fergus, Intriguing Properties of Neural Networks, "
    "ICLR 2014",
    domains=ADDITIVE,
    knowledge="white-box",
    norms=("l2",),
    goals=("untargeted", "targeted"),
    random=False,
    atlas="AML.T0043.000",
    minimal=True,
    quick={"steps": 2, "binary_search_steps": 2},
)
def lbfgs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "l2",
    eps: float | Tensor | None = None,
    steps: int = 100,
    binary_search_steps: int = 10,
    c: float = 1e-3,
    candidates: int = 3,
    tolerance: float = 1e-6,
    generator: Generator | None = None,
) -> Tensor:
    """Minimise `|r|^2 + c * cross-entropy of the goal` in the box by L-BFGS, with the smallest `c` that succeeds.

    Here `r` is the perturbation. The paper writes `c |r| + loss` and searches for the smallest `c`, which would give
    the largest perturbation; here `c` is the weight of the loss, as the paper intends. For each sample separately, `c`
    grows tenfold until the first success and is bisected from there. The nearest success is returned, whether or not it
    is a minimiser. With more than two classes it is somewhat farther than the nearest point, because cross-entropy also
    moves away from the other classes.

    Args:
        goal: None takes the likeliest other classes as goals, one after the other (the paper has goals only); any class
            but `y` is then a success.
        steps: largest number of evaluations in one minimisation.
        candidates: how many of the likeliest other classes are tried if there is no goal.
        tolerance: a minimisation ends when a step lowers its value by no more than this share of the value.

    Returns:
        The nearest success of each sample, shaped like `x`; the clean image if there is none.
    """
    at_least_one(steps=steps, binary_search_steps=binary_search_steps, candidates=candidates)
    if not (c > 0 and tolerance >= 0):
        raise InputError(f"c must be > 0 and tolerance >= 0, got {c} and {tolerance}")
    x = x.detach()
    nearest = Nearest(x, norm, eps, among=("l2",), domain=domain_of(model))
    with frozen(model):
        logits, targets = evaluate_clean(model, x, y, goal, nearest)
        if goal is None:
            others = logits.scatter(1, y[:, None], float("-inf")) if len(x) else logits
            goals = others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices
        else:
            goals = goal[:, None]
        targets = targets.take((~succeeded(logits, targets.y, targets.goal)).nonzero().squeeze(1))
        # for each class to reach, search the smallest weight with a success
        for wanted in goals.unbind(1) if len(targets.index) else ():
            weights = BinarySearch(x, c)
            for _ in range(binary_search_steps):
                reached = minimise(
                    model, nearest, targets, wanted[targets.index], weights.c[targets.index], steps, tolerance
                )[1]
                weights.update(reached, targets.index)
    return nearest.x_adv


def minimise(
    model: nn.Module, nearest: Nearest, targets: Targets, goal: Tensor, c: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Minimise `|r|^2 + c * cross-entropy`; return the minimisers `[B, ...]`, and which are successes, bool `[B]`.

    Args:
        model: maps inputs to logits.
        nearest: the clean inputs of the attack; every success on the way is recorded in it.
        targets: the `B` samples to attack, and what a success is.
        goal: the class whose cross-entropy is minimised, int64 `[B]`.
        c: the weight of the cross-entropy, `[B]`.
        steps: largest number of evaluations.
        tolerance: see `lbfgs`.
    """
    x, loss = nearest.x[targets.index], cross_entropy()
    found, reached = x.clone(), torch.zeros_like(targets.y, dtype=torch.bool)
    search, rows = QuasiNewton(x, *nearest.threat.bounds(x), step_size=0.01), torch.arange(len(x), device=x.device)
    for _ in range(steps):
        trial, before, clean = search.trial, search.value, x[rows]
        # evaluate the trial points; the loss always has a goal, but `targets` decides whether a point is a success
        logits, value, slope = value_and_grad(model, loss, trial, Targets(targets.y[rows], goal[rows], rows))
        success = succeeded(logits, targets.take(rows).y, targets.take(rows).goal)
        nearest.update(trial, success, targets.index[rows])
        # let the solver choose the next trial points; `value` is minus the cross-entropy
        weight = c[rows]
        search.tell(
            (trial - clean).square().flatten(1).sum(1) - weight * value,
            2 * (trial - clean) - per_sample(weight, slope) * slope,
        )
        # remember the points that were accepted; rows without progress leave
        accepted = search.value < before
        found[rows[accepted]], reached[rows[accepted]] = trial[accepted], success[accepted]
        little = accepted & (before - search.value <= tolerance * search.value)
        stays = (~(little | search.done)).nonzero().squeeze(1)
        if len(stays) < len(rows):
            rows = rows[stays]
            search.take(stays)
        if len(rows) == 0:
            break
    return found, reached
