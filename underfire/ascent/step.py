"""Shared parts of all attack loops: the targets of a batch, one step, its success and gradient, and the best images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.ascent.sources import evaluate
from underfire.gradients.estimators import autograd
from underfire.model import note_finite
from underfire.validate import per_sample


@dataclass(frozen=True)
class Targets:
    """The samples that the rows of a batch belong to, and the classes that the attack avoids or wants.

    Attributes:
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`, or None if any class but `y` is a success.
        index: the position of each sample in the batch that was given to the attack, int64 `[B]`.
    """

    y: Tensor
    goal: Tensor | None
    index: Tensor

    def take(self, rows: Tensor) -> Targets:
        """Return the targets of some rows."""
        return Targets(self.y[rows], None if self.goal is None else self.goal[rows], self.index[rows])

    def step(
        self,
        model: nn.Module,
        x: Tensor,
        logits: Tensor,
        progress: float = 0.0,
        z: Tensor | None = None,
        x_adv: Tensor | None = None,
    ) -> Step:
        """Return the step of these rows with images `x` and their logits; `x_adv` and `z` are `x` if not given."""
        x_adv = x if x_adv is None else x_adv
        return Step(model, x, logits, self.y, self.goal, self.index, progress, x if z is None else z, x_adv)


@dataclass(frozen=True)
class Step:
    """One evaluation of the model on perturbed images: everything that a term of an objective may use.

    Attributes:
        model: the model under attack.
        x: the images that the model sees, `[B, ...]`: a view of the perturbed images, or these themselves.
        logits: the logits of `x`, `[B, K]`.
        y: labels, int64 `[B]`.
        goal: classes to reach, int64 `[B]`, or None if any class but `y` is a success.
        index: the position of each sample in the batch that was given to the attack, int64 `[B]`.
        progress: share of the steps that are done, in `[0, 1]`.
        z: the variable of the threat that stands for `x`, such as a flow field; for a norm ball, `x_adv`.
        x_adv: the perturbed images before any view, `[B, ...]`.
        maps: the explanations that the model answered with, `[B, 1, h, w]`; None if it answers with logits only.
    """

    model: nn.Module
    x: Tensor
    logits: Tensor
    y: Tensor
    goal: Tensor | None
    index: Tensor
    progress: float
    z: Tensor
    x_adv: Tensor
    maps: Tensor | None = None


def succeeded(logits: Tensor, y: Tensor, goal: Tensor | None) -> Tensor:
    """Return whether each row has left class `y`, or reached its goal, bool `[B]`.

    A row with a logit that is NaN or infinite is not a success.
    """
    predicted, finite = logits.argmax(1), logits.isfinite().all(1)
    note_finite(finite)
    return (predicted != y if goal is None else predicted == goal) & finite


def value_and_grad(
    model: nn.Module, objective: Callable[[Step], Tensor], x_adv: Tensor, targets: Targets, *, progress: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits `[B, K]`, the objective `[B]` and its gradient at `x_adv`, all without a graph.

    Costs one forward and one backward pass. Entries of the gradient that are NaN or infinite become 0, since one of
    them would spoil the image.
    """
    seen: list[Step] = []

    def make(source: nn.Module, x: Tensor, logits: Tensor) -> Step:
        return targets.step(source, x, logits, progress)

    def loss(z: Tensor) -> Tensor:
        step, (value,) = evaluate(model, z, make, lambda step: [objective(step)])
        seen[:] = [step]
        return value

    value, gradient = autograd(loss, x_adv)
    return seen[0].logits.detach(), value.to(x_adv.dtype), torch.nan_to_num_(gradient, 0.0, 0.0, 0.0)


class Best:
    """The best image of every sample so far: a success before any failure, then the higher score.

    Args:
        x: the clean images `[B, ...]`, which are the best ones until the first update.

    Attributes:
        x_adv: the best images.
        found: which of them are successes, bool `[B]`.
        score: their scores, `[B]`; minus infinity before the first update.
    """

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self.found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.score = torch.full((len(x),), float("-inf"), dtype=x.dtype, device=x.device)

    def update(self, x_adv: Tensor, success: Tensor, score: Tensor, index: Tensor) -> Tensor:
        """Keep the images that are better than before, and return which those are, bool `[M]`.

        Args:
            x_adv: images `[M, ...]`.
            success: whether they are successes, bool `[M]`.
            score: the number that decides between two successes or two failures, `[M]`; higher is better.
            index: the samples that they belong to, int64 `[M]`, none twice.
        """
        score, found = score.to(self.score.dtype), self.found[index]
        better = (success & ~found) | ((success == found) & (score > self.score[index]))
        # Rows that are not better are written too, unchanged: selecting the other rows would wait for the device.
        for best, new in ((self.x_adv, x_adv), (self.score, score), (self.found, success)):
            best.index_copy_(0, index, torch.where(per_sample(better, best), new.to(best.dtype), best[index]))
        return better


State = Any


def take(state: State, rows: Tensor) -> State:
    """Return the memory of some rows; a memory is a tensor `[B, ...]`, a number, None, or a tuple of memories."""
    if isinstance(state, Tensor) and state.dim():
        return state[rows]
    if isinstance(state, tuple):
        return tuple(take(part, rows) for part in state)
    return state


def choose(rows: Tensor, one: State, other: State) -> State:
    """Return a memory with the rows of `one` where `rows` `[B]` is true, and those of `other` elsewhere."""
    if isinstance(one, Tensor) and one.dim():
        return torch.where(per_sample(rows, one), one, other)
    if isinstance(one, tuple):
        return tuple(choose(rows, a, b) for a, b in zip(one, other, strict=True))
    return other
