"""The loop of attacks that estimate gradients from scores: projected steps within a budget of queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.moves import Move
from underfire.ascent.objectives import Objective, margin
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.step import Best, Step, Targets, succeeded, take
from underfire.ascent.threats import Threat
from underfire.domains import domain_of
from underfire.gradients.estimators import Probes, slopes
from underfire.hooks import frozen
from underfire.validate import default_generator, per_sample


@dataclass(frozen=True)
class Aim:
    """The objective that an attack maximises, and what counts as its success.

    Attributes:
        objective: the function that the attack maximises.
        goal: classes to reach, int64 `[B]`; None leaves class `y`.
        rank: `(step, value) -> [B]`, a score that replaces the objective where two successes or two failures compete.
    """

    objective: Objective
    goal: Tensor | None = None
    rank: Callable[[Step, Tensor], Tensor] = lambda step, value: value


def ascend_from_scores(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    probes: Probes,
    *,
    queries: int | Tensor,
    pairs: int | Tensor,
    step_size: float | Tensor,
    goal: Tensor | None = None,
    steps: int | None = None,
    move: Move | None = None,
    begin: Callable[[Step], Aim] | None = None,
    keep: Literal["success", "best"] = "success",
    answer: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    last_step: float = 1.0,
    generator: Generator | None = None,
    chunk: int = 128,
) -> Tensor:
    """Maximise an objective along estimated gradients, until a sample succeeds or its queries are spent.

    An iterate costs one query, and its gradient costs `2 * pairs` queries. If fewer queries are left at the end, the
    last estimate uses fewer pairs. Probes that leave the box are clipped, so the slope of an entry at the border of the
    box is estimated at half its value.

    Args:
        model: maps `x` to logits `[B, K]`; its gradients are not used.
        x: clean inputs.
        y: labels, int64 `[B]`.
        threat: what may change; its variable must be the input itself.
        probes: the points at which the model is queried for an estimate.
        queries: how many queries each sample may cost, one number or one per sample `[B]`.
        pairs: number of pairs of points for an estimate, one number or one per sample `[B]`.
        step_size: length of a step, one number or one per sample `[B]`.
        goal: classes to reach, int64 `[B]`; None leaves class `y`.
        steps: largest number of steps; None is as many as the queries allow.
        move: turns the estimated gradient into a direction; None is `moves.plain()`.
        begin: a function from the first step, which has the output for the clean inputs, to the aim of the attack;
            None is the margin and `goal`.
        keep: `"success"` stops at a sample's first success; `"best"` continues until its queries are spent.
        answer: what a query returns: a function from inputs to logits, or to logits and maps (see `Step.maps`); None is
            the model's logits.
        last_step: the share of its first length that a step has when the queries are spent; in between it is linear.
        generator: source of the probes.
        chunk: how many images go through the model at once.

    Returns:
        The first success of every sample, or with `keep="best"` its best one; where there is none, the best iterate.
    """
    domain, generator = domain_of(model), default_generator(generator, x.device)
    threat = threat.in_domain(domain)
    threat.check(x)
    query = Queries(model, x, y, queries, goal=goal, chunk=chunk, answer=answer)
    best = Best(x)
    step_sizes, most_pairs = (torch.as_tensor(v, device=x.device).expand(len(x)) for v in (step_size, pairs))
    aim, move = Aim(margin(), goal), move or moves.plain()

    def evaluate(points: Tensor, targets: Targets) -> Step:
        """Return the step at some points, each of which costs its sample a query."""
        logits, *maps = query.answers(points, targets.index)
        return replace(targets.step(model, points, logits), maps=maps[0] if maps else None)

    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    z, state, step = x.detach().clone(), move.init(x), 0
    with frozen(model), attach_partial_result(lambda: best.x_adv), torch.no_grad():
        while len(targets.index):
            here = evaluate(z, targets)
            if begin is not None and step == 0:
                aim = begin(here)
                targets, here = replace(targets, goal=aim.goal), replace(here, goal=aim.goal)
            value = aim.objective(here).to(x.dtype)
            # keep the first success, or the best iterate
            reached = succeeded(here.logits, targets.y, targets.goal)
            best.update(z, reached, aim.rank(here, value), targets.index)
            # the other rows continue; a step costs at least two probes, and a query for the new iterate
            continues = query.left[targets.index] >= 3
            if keep == "success":
                continues &= ~reached
            if step == steps or not bool(continues.any()):
                break
            rows = continues.nonzero().squeeze(1)
            targets, z, threat, state = targets.take(rows), z[rows], threat.take(rows), take(state, rows)
            # estimate the gradient, together for all rows that can pay for the same number of pairs
            g = torch.empty_like(z)
            count = torch.minimum(most_pairs[targets.index], (query.left[targets.index] - 1) // 2)
            for number in count.unique().tolist():
                group = (count == number).nonzero().squeeze(1)
                group_targets = targets.take(group)

                def loss(points: Tensor, group_targets: Targets = group_targets, aim: Aim = aim) -> Tensor:
                    rows = torch.arange(len(group_targets.index), device=x.device).repeat(
                        len(points) // len(group_targets.y)
                    )
                    return aim.objective(evaluate(domain.clip(points), group_targets.take(rows)))

                g[group] = slopes(loss, z[group], probes, number, generator, chunk=chunk)
            # step and project
            direction, state = move.update(torch.nan_to_num_(g, 0.0, 0.0, 0.0), state)
            if move.steepest:
                direction = threat.steepest(direction, x[targets.index], z)
            spent = (query.used / query.limit)[targets.index]
            length = per_sample((step_sizes[targets.index] * (1 - (1 - last_step) * spent)).to(z), z)
            z = threat.project(x[targets.index], z + length * direction)
            step += 1
    return best.x_adv
