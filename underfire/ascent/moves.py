"""Moves: rules that turn a gradient into a direction, with a memory of one entry per row; they never call the model.

`init(z) -> state`, `update(g, state) -> (direction, state)`, and `peek(state, step_size) -> offset`: the point at which
the next gradient is taken, relative to `z`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.ascent.step import State
from underfire.gradients.smoothing import normalise
from underfire.validate import at_least, per_sample


@dataclass(frozen=True)
class Move:
    """A rule that turns a gradient into a direction.

    Attributes:
        init: returns the memory for the variable `z`.
        update: maps a gradient and the memory to a direction and the new memory.
        peek: maps the memory and the size of the next step to the offset from `z` at which the next gradient is taken;
            None means no offset.
        steepest: whether the threat replaces the direction by its steepest one; Adam's is used unchanged.
    """

    init: Callable[[Tensor], State]
    update: Callable[[Tensor, State], tuple[Tensor, State]]
    peek: Callable[[State, float | Tensor], Tensor] | None = None
    steepest: bool = True


def plain() -> Move:
    """Use the gradient itself, which the threat turns into its steepest direction."""
    return Move(lambda z: None, lambda g, state: (g, state))


def raw() -> Move:
    """Use the gradient itself as the direction; the threat does not change it."""
    return Move(lambda z: None, lambda g, state: (g, state), steepest=False)


def momentum(decay: float = 1.0) -> Move:
    """Accumulate gradients, each divided by its L1 norm (MI).

    Source: Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018.
    """
    at_least(0, decay=decay)
    unit = normalise(1)

    def update(g: Tensor, state: State) -> tuple[Tensor, State]:
        total = torch.add(unit(g), state, alpha=decay)
        return total, total

    return Move(torch.zeros_like, update)


def look_ahead(decay: float = 1.0) -> Move:
    """Accumulate gradients that are taken ahead along the momentum, at `z + step_size * decay * memory` (NI).

    Source: Lin et al., Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks, ICLR 2020.
    """
    base = momentum(decay)
    return Move(base.init, base.update, peek=lambda state, step_size: per_sample(step_size, state) * decay * state)


def conjugate() -> Move:
    """Use conjugate directions `s_k = g_k + beta_k s_{k-1}`, with the beta of Hestenes and Stiefel.

    With `y = g_{k-1} - g_k`, beta is `-<g_k, y> / <s_{k-1}, y>`; it is 0 at the first step, and where the denominator
    is 0.

    Source: Yamamura et al., Diversified Adversarial Attacks based on Conjugate Gradient Method, ICML 2022, (6) to (8).
    """

    def update(g: Tensor, state: State) -> tuple[Tensor, State]:
        old, s = state
        y = old - g
        top, bottom = ((part * y).flatten(1).sum(1) for part in (-g, s))
        beta = torch.where(bottom != 0, top / torch.where(bottom != 0, bottom, 1), 0)
        s = g + per_sample(beta, s) * s
        return s, (g, s)

    return Move(lambda z: (torch.zeros_like(z), torch.zeros_like(z)), update)


def adam(beta1: float = 0.9, beta2: float = 0.999, stability: float = 1e-8, amsgrad: bool = False) -> Move:
    """Use Adam's direction, whose entries are around 1 or -1; the threat does not change it.

    Every row counts its own steps, so that one row can restart while others go on.

    Args:
        beta1: decay of the mean of the gradients.
        beta2: decay of the mean of their squares.
        stability: number that is added to the root of that mean.
        amsgrad: whether the largest mean of the squares so far is used, instead of the last one (AMSGrad).

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015; Reddi, Kale and Kumar, On the
    Convergence of Adam and Beyond, ICLR 2018.
    """

    def init(z: Tensor) -> State:
        t = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        return torch.zeros_like(z), torch.zeros_like(z), t, *([torch.zeros_like(z)] if amsgrad else [])

    def update(g: Tensor, state: State) -> tuple[Tensor, State]:
        mean, square, t, *largest = state
        t = t + 1
        mean, square = mean.lerp(g, 1 - beta1), square.lerp(g * g, 1 - beta2)
        largest = [top.maximum(square) for top in largest]
        scale = largest[0] if largest else square
        first, second = (per_sample((1 - beta**t).to(g), g) for beta in (beta1, beta2))
        return (mean / first) / ((scale / second).sqrt_() + stability), (mean, square, t, *largest)

    return Move(init, update, steepest=False)
