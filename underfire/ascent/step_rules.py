"""Step rules: how long each step is, from a fixed size to the adaptive rules of APGD.

A step rule has a memory of its own, one entry per row: `init(position, z) -> state`, `size(position, state)`, and
`update(position, z, direction, state) -> (next z, state)`. A rule that adapts to the progress also has
`judge(position, progress, state) -> (state, rows)`; the loop sends these rows back to their best iterate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.ascent.step import State
from underfire.ascent.threats import Threat
from underfire.errors import InputError
from underfire.validate import at_least, per_sample

StepSize = float | Tensor | Callable[[int, int], float | Tensor]


@dataclass(frozen=True)
class Position:
    """The samples that take a step, and the number of this step in the run.

    Attributes:
        threat: what may change, for the rows of this batch.
        x: the clean images of the rows.
        index: the samples that the rows belong to, int64 `[B]`.
        step: how many steps were taken before this one.
        steps: how many steps the run has.
        projection: the threat's projection around `x`, made once for all steps; None makes it anew.
    """

    threat: Threat
    x: Tensor
    index: Tensor
    step: int
    steps: int
    projection: Callable[[Tensor], Tensor] | None = None

    def project(self, z: Tensor) -> Tensor:
        """Return the allowed point nearest to `z`."""
        return self.threat.project(self.x, z) if self.projection is None else self.projection(z)


@dataclass(frozen=True)
class Progress:
    """The progress of a run up to the current iterate.

    Attributes:
        rose: whether the last step raised the objective of each row, bool `[B]`.
        top: the highest objective of this run, `[B]`.
        best: the iterate with that objective, `[B, ...]`.
    """

    rose: Tensor
    top: Tensor
    best: Tensor


@dataclass(frozen=True)
class StepRule:
    """A rule that chooses the length of every step, and takes the step.

    Attributes:
        init: returns the memory for the variable `z`.
        size: returns the length of the next step in the threat's norm, one number or one per row `[B]`.
        update: takes the step along a direction, projects it, and returns the next `z` and the new memory.
        judge: returns the new memory, and which rows go back to their best iterate, bool `[B]` or None for no row. A
            rule that never sends a row back has no `judge`.
    """

    init: Callable[[Position, Tensor], State]
    size: Callable[[Position, State], float | Tensor]
    update: Callable[[Position, Tensor, Tensor, State], tuple[Tensor, State]]
    judge: Callable[[Position, Progress, State], tuple[State, Tensor | None]] | None = None


def current_step_size(step_size: StepSize, step: int, steps: int) -> float | Tensor:
    """Return the size of step number `step`, counted from 0, of `steps`."""
    return step_size(step, steps) if callable(step_size) else step_size


def scheduled(step_size: StepSize) -> StepRule:
    """Take steps of a given size: one number, one per sample `[B]`, or a schedule `(step, steps) -> size`.

    Raises:
        InputError: the size is a negative number.
    """
    if isinstance(step_size, (int, float)):
        at_least(0, step_size=step_size)

    def size(position: Position, state: State) -> float | Tensor:
        length = current_step_size(step_size, position.step, position.steps)
        if isinstance(length, Tensor) and length.dim():
            return length.to(position.x)[position.index]
        return length

    def update(position: Position, z: Tensor, direction: Tensor, state: State) -> tuple[Tensor, State]:
        length = size(position, state)
        if isinstance(length, Tensor):
            ahead = z + per_sample(length, z) * direction
        else:
            ahead = torch.add(z, direction, alpha=length)
        return position.project(ahead), state

    return StepRule(lambda position, z: None, size, update)


def linear(first: float | Tensor, last: float | Tensor = 0.0) -> Callable[[int, int], float | Tensor]:
    """Return a schedule that is linear from `first` at the first step to `last` at the last one; each may be `[B]`."""
    return lambda step, steps: first + (last - first) * step / max(steps - 1, 1)


def cosine(first: float, last: float = 0.0) -> Callable[[int, int], float]:
    """Return a schedule from `first` at the first step to `last` at the last one, along half a period of a cosine."""
    return lambda step, steps: last + (first - last) * (1 + math.cos(math.pi * step / max(steps - 1, 1))) / 2


def staircase(sizes: dict[float, float]) -> Callable[[int, int], float]:
    """Return a schedule that changes at given shares of the steps, such as `{0: 0.1, 0.5: 0.01}`.

    Raises:
        InputError: no size is given for the first step.
    """
    if 0 not in sizes:
        raise InputError(f"a staircase needs a size from the start on (key 0), got keys {sorted(sizes)}")
    return lambda step, steps: sizes[max(share for share in sizes if share * steps <= step)]


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which APGD checks its progress, in ascending order.

    They are at 22 %, 41 %, ... of the steps, rounded up; each gap is 3 percentage points shorter than the gap before,
    but at least 6.
    """
    p, gap, found = 22, 22, []
    while p < 100:
        found.append(-(-p * steps // 100))
        gap = max(gap - 3, 6)
        p += gap
    return sorted(set(found))


def halving(momentum: float = 0.75, rho: float = 0.75) -> StepRule:
    """Start with steps of `2 eps`, and halve the step of a row after a period of too little progress: APGD's rule.

    A row whose step is halved goes back to its best iterate. A period ends at each of the `checkpoints`. Its progress
    is too little if at most the share `rho` of its steps raised the objective, or if the best objective did not rise in
    the period and the step was not halved at the checkpoint before it.

    Args:
        momentum: APGD's alpha: the weight of the new step; the previous step has the weight `1 - momentum`.
        rho: share of the steps of a period; more steps than this share must raise the objective.

    Raises:
        InputError: an argument is out of its range.

    Source: Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
        Attacks, ICML 2020, algorithm 1.
    """
    if not (0 < momentum <= 1 and 0 <= rho <= 1):
        raise InputError(f"halving needs momentum in (0, 1] and rho in [0, 1], got {momentum} and {rho}")

    def init(position: Position, z: Tensor) -> State:
        eta = 2 * torch.as_tensor(position.threat.eps, dtype=z.dtype, device=z.device).expand(len(z))
        # step size, previous iterate, rises in this period, halved at the last checkpoint, best objective there
        rises, halved = torch.zeros_like(eta), torch.ones_like(eta, dtype=torch.bool)
        return eta, z, rises, halved, torch.full_like(eta, float("-inf"))

    def update(position: Position, z: Tensor, direction: Tensor, state: State) -> tuple[Tensor, State]:
        eta, old, *rest = state
        ahead = position.project(z + per_sample(eta, z) * direction)
        if position.step and momentum < 1:  # the first step has no previous one
            ahead = position.project(z + momentum * (ahead - z) + (1 - momentum) * (z - old))
        return ahead, (eta, z, *rest)

    def judge(position: Position, progress: Progress, state: State) -> tuple[State, Tensor | None]:
        # at a checkpoint, halve the steps of the rows that stall, and begin a new period
        eta, old, rises, halved, record = state
        rises = rises + progress.rose
        points = [0, *checkpoints(position.steps)]
        if position.step not in points[1:]:
            return (eta, old, rises, halved, record), None
        period = position.step - points[points.index(position.step) - 1]
        stalls = (rises <= rho * period) | (~halved & (record >= progress.top))
        eta = torch.where(stalls, eta / 2, eta)
        return (eta, old, torch.zeros_like(rises), stalls, progress.top), stalls

    return StepRule(init, lambda position, state: state[0], update, judge)


def sparse(total: int | None = None) -> StepRule:
    """Move only the entries with the largest gradient, by shrinking steps: the rule of APGD for L1.

    A checkpoint comes after every 4 % of the steps. At a checkpoint, a row whose best iterate has become sparser goes
    back to it, with a step of `eps`; the step of every other row is divided by 1.5, down to `eps / 10`. The direction
    must be the gradient itself (`moves.raw`).

    Args:
        total: number of steps, 4 % of which lie between two checkpoints; None is that of the run.

    Source: Croce and Hein, Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers, ICML 2021.
    """

    def count_moved(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many entries differ from `x`, and how many entries the next steps move, `[B]` each."""
        moved = (z != x).flatten(1).sum(1).to(x.dtype)
        return moved, torch.where(moved > 0, moved / 1.5, 0.2 * x[0].numel())

    def init(position: Position, z: Tensor) -> State:
        # step size, first step size, changed entries at the last checkpoint, entries that a step moves
        full = torch.as_tensor(position.threat.eps, dtype=z.dtype, device=z.device).expand(len(z))
        moved, entries = count_moved(position.x, z)
        # from the clean input, all entries count as changed, so that the first checkpoint finds a sparser iterate
        return full, full, torch.where(moved > 0, moved, float(z[0].numel())), entries

    def update(position: Position, z: Tensor, direction: Tensor, state: State) -> tuple[Tensor, State]:
        eta, _, _, entries = state
        # move the `entries` entries with the largest gradient, in all by the step size
        g = direction.flatten(1)
        strength, features = g.abs(), g.shape[1]
        rank = (features - entries).clamp(0, features - 1).long()
        weakest = strength.sort(dim=1).values.gather(1, rank[:, None])
        signs = g.sign() * (strength >= weakest)
        step = eta[:, None] * signs / signs.abs().sum(1, keepdim=True).clamp_min(1)
        return position.project(z + step.view_as(z)), state

    def judge(position: Position, progress: Progress, state: State) -> tuple[State, Tensor | None]:
        eta, full, before, entries = state
        if position.step % max(int(0.04 * (total or position.steps)), 1):
            return state, None
        # at a checkpoint, compare the number of changed entries with that at the checkpoint before
        moved, entries = count_moved(position.x, progress.best)
        sparser = moved < 0.95 * before
        eta = torch.where(sparser, full, torch.maximum(eta / 1.5, full / 10))
        return (eta, full, moved, entries), sparser

    return StepRule(init, lambda position, state: state[0], update, judge)
