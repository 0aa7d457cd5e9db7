"""The loop of attacks that estimate gradients from scores: projected steps within a budget of queries."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from underfire.ascent import moves
from underfire.ascent.moves import Move
from underfire.ascent.objectives import margin
from underfire.ascent.queries import Queries, attach_partial_result
from underfire.ascent.step import Best, Targets, succeeded, take
from underfire.ascent.threats import Threat
from underfire.domains import domain_of
from underfire.gradients.estimators import Probes, slopes
from underfire.hooks import frozen
from underfire.validate import default_generator, per_sample


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
    generator: Generator | None = None,
    chunk: int = 128,
) -> Tensor:
    """Maximise the margin along estimated gradients, until a sample succeeds or its queries are spent.

    An iterate costs one query, and its gradient `2 * pairs` more. The queries left at the end pay for an estimate from
    fewer pairs. Probes that leave the box are clipped, so the slope of an entry at the border of the box is estimated
    at half its value.

    Args:
        model: maps `x` to logits `[B, K]`; only its answers are used.
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
        generator: source of the probes.
        chunk: how many images go through the model at once.

    Returns:
        The first success of every sample, or its iterate with the largest margin if there is none.
    """
    domain, generator = domain_of(model), default_generator(generator, x.device)
    threat = threat.in_domain(domain)
    threat.check(x)
    ask = Queries(model, x, y, queries, goal=goal, chunk=chunk)
    best = Best(x)
    step_sizes, most_pairs = (torch.as_tensor(v, device=x.device).expand(len(x)) for v in (step_size, pairs))
    objective, move = margin(), move or moves.plain()
    targets = Targets(y, goal, torch.arange(len(x), device=x.device))
    z, state, step = x.detach().clone(), move.init(x), 0
    with frozen(model), attach_partial_result(lambda: best.x_adv), torch.no_grad():
        while len(targets.index):
            logits = ask(z, targets.index)
            value = objective(targets.step(model, z, logits)).to(x.dtype)
            # keep the first success, or the largest margin
            reached = succeeded(logits, targets.y, targets.goal)
            best.update(z, reached, value, targets.index)
            # rows that have not succeeded go on; a step costs at least two probes, and a query for the new iterate
            goes_on = ~reached & (ask.left[targets.index] >= 3)
            if step == steps or not bool(goes_on.any()):
                break
            rows = goes_on.nonzero().squeeze(1)
            targets, z, threat, state = targets.take(rows), z[rows], threat.take(rows), take(state, rows)
            # estimate the gradient, together for all rows that can pay for the same number of pairs
            g = torch.empty_like(z)
            count = torch.minimum(most_pairs[targets.index], (ask.left[targets.index] - 1) // 2)
            for number in count.unique().tolist():
                some = (count == number).nonzero().squeeze(1)
                here = targets.take(some)

                def loss(points: Tensor, here: Targets = here) -> Tensor:
                    asked = here.take(torch.arange(len(here.index), device=x.device).repeat(len(points) // len(here.y)))
                    points = domain.clip(points)
                    return objective(asked.step(model, points, ask(points, asked.index)))

                g[some] = slopes(loss, z[some], probes, number, generator, chunk=chunk)
            # step and project
            direction, state = move.update(torch.nan_to_num_(g, 0.0, 0.0, 0.0), state)
            if move.steepest:
                direction = threat.steepest(direction, x[targets.index], z)
            length = per_sample(step_sizes[targets.index].to(z), z)
            z = threat.project(x[targets.index], z + length * direction)
            step += 1
    return best.x_adv
