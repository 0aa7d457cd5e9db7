"""Evaluate an objective on a model, or on every source of an ensemble whose losses or gradients are fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from underfire.gradients.smoothing import norms, unit
from underfire.hooks import folded, layers_read, shared_forward
from underfire.model import Ensemble

S = TypeVar("S")


def members_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the members of an ensemble, or the model itself."""
    return tuple(model.members) if isinstance(model, Ensemble) else (model,)


def sources_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the models on which an objective is evaluated: an ensemble's members if their losses are fused."""
    return members_of(model) if isinstance(model, Ensemble) and model.apart else (model,)


@contextmanager
def shared_passes(model: nn.Module, *, begin: bool = True, twice: bool = True) -> Iterator[Callable[[], None]]:
    """Share forward passes of the model and of the members of an ensemble, as `hooks.shared_forward` does for one."""
    with ExitStack() as stack:
        models = dict.fromkeys((model, *members_of(model)))
        forgets = [stack.enter_context(shared_forward(one, begin=begin)) for one in models]

        def forget() -> None:
            for one in forgets:
                one()

        yield forget


@contextmanager
def folded_passes(model: nn.Module, x: Tensor) -> Iterator[bool]:
    """Fold the batch norms of the model, or of every member of an ensemble, inside the block (see `hooks.folded`).

    The block gets whether there is a norm to fold. Layers that shared passes read already may be read inside; if they
    are those of an ensemble as one model, nothing is folded.
    """
    members = dict.fromkeys(members_of(model))
    if model not in members and layers_read(model):
        members.clear()
    with ExitStack() as stack:
        found = [stack.enter_context(folded(one, x, layers_read(one))) for one in members]
        yield any(found)


def evaluate(
    model: nn.Module,
    x: Tensor,
    make: Callable[[nn.Module, Tensor, Tensor], S],
    terms: Callable[[S], list[Tensor]],
) -> tuple[S, list[Tensor]]:
    """Return the step at `x` and the values of its terms, `[B]` each; of an ensemble, their weighted means.

    The graph of an ensemble with `fuse="gradients"` gives `x` the mean of the sources' gradients, each divided by its
    L1 norm, times the mean of these norms.

    Args:
        x: what the model sees, `[B, ...]`.
        make: `(model, x, logits) -> step`.
        terms: the values of the terms at a step.
    """
    if not (isinstance(model, Ensemble) and model.apart):
        step = make(model, x, model(x))
        return step, terms(step)
    copies = (x,) * len(model.members)
    if model.fuse == "gradients" and x.requires_grad and torch.is_grad_enabled():
        copies = _Copies.apply(x, model.weights)
    answers, values = [], []
    for number, (member, copy) in enumerate(zip(model.members, copies, strict=True)):
        shown = model.resized(copy, number)
        answers.append(member(shown))
        values.append(terms(make(member, shown, answers[-1])))
    model.note(x, answers)
    return make(model, x, model.average(answers)), [model.average(parts) for parts in zip(*values, strict=True)]


class _Copies(torch.autograd.Function):
    """Give every source a copy of `x`, and average their gradients, each divided by its L1 norm.

    The gradients that arrive are weighted already. The average is scaled by the weighted mean of their norms, so that
    with one source it is that source's gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: tuple[float, ...]) -> tuple[Tensor, ...]:
        """Return the copies."""
        ctx.weights = weights
        return tuple(x.view_as(x) for _ in weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the average."""
        size = torch.stack([norms(g, 1) for g in gradients]).sum(0)
        mean = torch.stack([w * unit(g, 1) for w, g in zip(ctx.weights, gradients, strict=True)]).sum(0)
        return size * mean, None
