"""The loop of Carlini and Wagner's three attacks: runs of Adam in tanh space, each sample at its own step and run."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from underfire.ascent.early_abort import EarlyAbort
from underfire.ascent.moves import adam
from underfire.ascent.nearest import Nearest
from underfire.ascent.objectives import Objective, margin
from underfire.ascent.step import Targets, succeeded, take, value_and_grad
from underfire.ascent.threats import Threat
from underfire.domains import Domain
from underfire.validate import per_sample

#: The share of the range of tanh that is the box. With the whole range, black and white pixels would lie at infinity.
#: With the usual share, just below one, the slope of tanh at these pixels would be so small that hundreds of steps
#: could not move them.
SHARE = 0.99


class Search:
    """The part of the attack that depends on the norm: the distance, when a run is solved, and which run is next.

    Attributes:
        x: clean inputs `[B, ...]`.
        c: weight of the objective against the distance, `[B]`.
        step_size: size of Adam's steps in tanh space, `[B]`.
        threat: the box.
    """

    def __init__(self, x: Tensor, c: float, step_size: float, threat: Threat) -> None:
        self.x, self.threat = x, threat
        self.c, self.step_size = x.new_full((len(x),), c), x.new_full((len(x),), step_size)

    def shown(self, x_adv: Tensor, index: Tensor) -> Tensor:
        """Return `x_adv` of the samples at `index` with clean values in the entries that may not change."""
        return x_adv if self.threat.domain.unit_box else self.threat.clip(self.x[index], x_adv)

    def distance(self, shift: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance of the changes `[M, ...]` of the samples at `index`, `[M]`, and its gradient."""
        return shift.square().flatten(1).sum(1), 2 * shift

    def solved(self, success: Tensor, far: Tensor, index: Tensor) -> Tensor:
        """Return which runs have found what they search for, bool `[M]`; `far` is the distance of each, `[M]`."""
        return torch.zeros_like(success)

    def conclude(self, x_adv: Tensor, solved: Tensor, reached: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Use the results of finished runs; return which samples start another run, bool `[M]`, and their starts."""
        raise NotImplementedError


def descend(
    model: nn.Module,
    targets: Targets,
    objective: Objective,
    search: Search,
    nearest: Nearest,
    *,
    steps: int,
    confidence: float,
    abort_early: bool,
) -> None:
    """Minimise `distance - c * objective` run after run as `search` directs, and pass every success to `nearest`.

    A run ends when it is solved, after `steps` steps, or (with `abort_early`) when its loss has stopped falling (see
    `EarlyAbort`). The sample then starts its next run at once, while other samples are still in the middle of theirs,
    so that the batch stays full.
    """
    lead, limit = margin(), math.atanh(SHARE)
    box = search.threat.domain
    w = _to_tanh(search.x[targets.index], box)
    move = adam()
    memory, t = move.init(w), torch.zeros_like(targets.index)
    abort = EarlyAbort(search.c[targets.index], steps) if abort_early else None
    reached = torch.zeros_like(t, dtype=torch.bool)
    while len(targets.index):
        # forward and backward pass
        x, c = search.x[targets.index], search.c[targets.index]
        tanh_w = torch.tanh(w)
        x_adv = search.shown(_from_tanh(tanh_w, box), targets.index)
        logits, value, g_objective = value_and_grad(model, objective, x_adv, targets)
        distance, g_distance = search.distance(x_adv - x, targets.index)
        # record the successes
        success = succeeded(logits, targets.y, targets.goal)
        if confidence:
            success &= lead(targets.step(model, x_adv, logits)) >= confidence
        nearest.update(x_adv, success, targets.index)
        reached |= success
        # step in tanh space
        g = torch.nan_to_num_(g_distance - per_sample(c, g_objective) * g_objective, 0.0, 0.0, 0.0)
        g.mul_((1 - tanh_w * tanh_w) / (2 * SHARE))
        if not box.unit_box:
            low, high = box.box(w)
            g.mul_(high - low)
        direction, memory = move.update(g, memory)
        w = (w - per_sample(search.step_size[targets.index], w) * direction).clamp_(-limit, limit)
        # end the runs that are solved, out of steps, or without progress
        solved = search.solved(success, distance, targets.index)
        ended = solved | (t >= steps - 1)
        if abort is not None:
            ended |= abort.stalled(distance - c * value, t)
        t += 1
        if not bool(ended.any()):
            continue
        # start the next run of these samples; samples whose search is over leave the batch
        rows = ended.nonzero().squeeze(1)
        continues, starts = search.conclude(x_adv[rows], solved[rows], reached[rows], targets.take(rows))
        w[rows], t[rows], reached[rows] = _to_tanh(starts, box), 0, False
        if abort is not None:
            abort.restart(rows)
        for part in memory:
            part[rows] = 0
        if not bool(continues.all()):
            stays = torch.ones_like(ended).index_put((rows,), continues).nonzero().squeeze(1)
            w, memory, t, reached = take((w, memory, t, reached), stays)
            targets = targets.take(stays)
            if abort is not None:
                abort.take(stays)


def _to_tanh(x: Tensor, domain: Domain) -> Tensor:
    """Return the `w` for which `_from_tanh(tanh(w))` is `x`."""
    if not domain.unit_box:
        low, high = domain.box(x)
        x = (x - low) / (high - low)
    return torch.atanh((2 * x - 1) * SHARE)


def _from_tanh(tanh_w: Tensor, domain: Domain) -> Tensor:
    """Return the inputs for values of tanh: the middle of its range, scaled to the box."""
    share = (tanh_w / SHARE + 1).div_(2).clamp_(0, 1)
    if domain.unit_box:
        return share
    low, high = domain.box(tanh_w)
    return low + (high - low) * share
