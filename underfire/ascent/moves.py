"""From a gradient to a direction: a move has a memory of its own, one entry per sample, and never sees the model.

`init(z) -> state`, `peek(state) -> offset` (where to look for the next gradient, relative to `z`),
`update(g, state) -> (d, state)`. State is a tensor `[B, ...]`, a number, None, or a tuple of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from underfire.errors import InputError
from underfire.gradients.smoothing import normalise

State = Any
StepSize = float | Tensor | Callable[[int, int], float | Tensor]


@dataclass(frozen=True)
class Move:
    """One way to use gradients.

    Attributes:
        init: memory for the variable `z`.
        update: from a gradient and the memory to a direction and the new memory.
        peek: the offset of `z` at which the next gradient is taken; None is no offset.
        steepest: whether the threat turns the direction into its steepest one; Adam's is final as it is.
    """

    init: Callable[[Tensor], State]
    update: Callable[[Tensor, State], tuple[Tensor, State]]
    peek: Callable[[State], Tensor] | None = None
    steepest: bool = True


def take(state: State, index: Tensor) -> State:
    """The memory of the samples at `index`."""
    if isinstance(state, Tensor) and state.dim():
        return state[index]
    if isinstance(state, tuple):
        return tuple(take(part, index) for part in state)
    return state


def plain() -> Move:
    """The gradient itself."""
    return Move(lambda z: None, lambda g, state: (g, state))


def momentum(decay: float = 1.0) -> Move:
    """Accumulate gradients, each divided by its L1 norm (MI).

    Source: Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018.
    """
    unit = normalise(1)

    def update(g: Tensor, state: State) -> tuple[Tensor, State]:
        total = decay * state + unit(g)
        return total, total

    return Move(torch.zeros_like, update)


def look_ahead(decay: float = 1.0, *, step_size: float) -> Move:
    """Momentum whose gradient is taken where the momentum is about to lead: `z + step_size * decay * memory` (NI).

    Source: Lin et al., Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks, ICLR 2020.
    """
    base = momentum(decay)
    return Move(base.init, base.update, peek=lambda state: step_size * decay * state)


def adam(beta1: float = 0.9, beta2: float = 0.999, stability: float = 1e-8) -> Move:
    """Adam's direction, of entries around one; the threat does not change it.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    def init(z: Tensor) -> State:
        return torch.zeros_like(z), torch.zeros_like(z), 0

    def update(g: Tensor, state: State) -> tuple[Tensor, State]:
        mean, square, t = state
        t += 1
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g * g
        direction = (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + stability)
        return direction, (mean, square, t)

    return Move(init, update, steepest=False)


def current_step_size(step_size: StepSize, step: int, steps: int) -> float | Tensor:
    """The size of step `step` of `steps` (counted from 0)."""
    return step_size(step, steps) if callable(step_size) else step_size


def linear(first: float | Tensor, last: float | Tensor = 0.0) -> Callable[[int, int], float | Tensor]:
    """A size that goes from `first` at the first step to `last` at the last one in equal parts; each may be `[B]`."""
    return lambda step, steps: first + (last - first) * step / max(steps - 1, 1)


def cosine(first: float, last: float = 0.0) -> Callable[[int, int], float]:
    """A size that goes from `first` to `last` along half a cosine."""
    return lambda step, steps: last + (first - last) * (1 + math.cos(math.pi * step / max(steps - 1, 1))) / 2


def staircase(sizes: dict[float, float]) -> Callable[[int, int], float]:
    """A size that changes at given shares of the way, such as `{0: 0.1, 0.5: 0.01}`."""
    if 0 not in sizes:
        raise InputError(f"a staircase needs a size from the start on (key 0), got keys {sorted(sizes)}")
    return lambda step, steps: sizes[max(share for share in sizes if share * steps <= step)]
