"""Gradients around an iterate: neighbours, random operators, and a penalty on the norm of the gradient (OPS, PGN)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.gradients import operations
from underfire.gradients.attack_loss import AttackLoss
from underfire.gradients.estimators import Estimator, Loss, State, autograd
from underfire.gradients.smoothing import norms
from underfire.gradients.views import Rows, RowView, View, on_host, whole
from underfire.validate import at_least, at_least_one, per_sample

#: The operators of OPS, of which random chains are made.
OPERATORS = (
    operations.unchanged,
    operations.flip_rows,
    operations.flip_columns,
    operations.shift_rows,
    operations.shift_columns,
    *(operations.rotate(degrees) for degrees in (5, -5, 15, -15, 45, -45, 90, -90, 180)),
    *(operations.divide(factor) for factor in range(2, 9)),
    *(operations.diversify(rate) for rate in (1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9)),
)


def neighbours(samples: int = 10, radius: float | Tensor = 2 * 16 / 255, shares: tuple[float, ...] = (1.0,)) -> RowView:
    """Yield copies with uniform noise: the perturbations of OPS.

    Args:
        samples: number of copies.
        radius: the largest change of a value; one number, or one per sample `[B]` of the attack's batch.
        shares: the noise of a copy is uniform within the radius times one of these numbers, which is drawn.

    Raises:
        InputError: an argument is out of its range.

    Source: Guo et al., Boosting Adversarial Transferability through Augmentation in Hypothesis Space, CVPR 2025.
    """
    at_least_one(samples=samples)
    if not shares or min(shares) < 0:
        raise InputError(f"neighbours needs shares >= 0, got {shares}")

    def of(rows: Rows) -> View:
        own = radius.to(rows.images)[rows.index] if isinstance(radius, Tensor) and radius.dim() else radius

        def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
            draws = on_host(generator)
            for _ in range(samples):
                share = shares[whole(0, len(shares), draws)]
                lot = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                yield x + per_sample(own, x) * share * (2 * lot - 1)

        return view

    return RowView(of)


def random_operators(samples: int = 20, lengths: tuple[int, ...] = (2, 3, 4)) -> View:
    """Yield copies that went through random chains of operators: flips, shifts, rotations, divisions, and resizing.

    Args:
        samples: number of copies.
        lengths: numbers of operators in a chain, one of which is drawn.

    Raises:
        InputError: an argument is out of its range.

    Source: Guo et al., Boosting Adversarial Transferability through Augmentation in Hypothesis Space, CVPR 2025.
    """
    at_least_one(samples=samples)
    if not lengths or min(lengths) < 1:
        raise InputError(f"random_operators needs lengths >= 1, got {lengths}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        draws = on_host(generator)
        for _ in range(samples):
            version = x
            for _ in range(lengths[whole(0, len(lengths), draws)]):
                version = OPERATORS[whole(0, len(OPERATORS), draws)](version, draws)
            yield version

    return view


def gradient_penalty(
    samples: int = 20, radius: float | Tensor = 3 * 16 / 255, step: float | Tensor = 1.6 / 255, penalty: float = 0.5
) -> Estimator:
    """Average the gradient over neighbours and over points a step down from each, which leads to flat maxima (PGN).

    With `z'` uniform within the radius around `z`, `g'` the gradient at `z'`, and `g*` the gradient at
    `z' - step * g' / mean|g'|`, it is the mean of `(1 - penalty) g' + penalty g*`. This approximates the gradient of
    the objective minus a multiple of the norm of its gradient. Costs `2 * samples` forward and backward passes, and a
    forward pass if the attack compares iterates. The paper writes the L1 norm where the authors' code, and this one,
    have its mean.

    Args:
        samples: number of neighbours, the paper's N.
        radius: half the side of the cube that they are drawn from, the paper's zeta; one number or one per sample.
        step: length of the step, the paper's alpha; one number or one per sample.
        penalty: weight of the gradient after the step, the paper's delta.

    Raises:
        InputError: an argument is out of its range.

    Source: Ge et al., Boosting Adversarial Transferability by Achieving Flat Local Maxima, NeurIPS 2023.
    """
    at_least_one(samples=samples)
    at_least(0, penalty=penalty)

    def init(z: Tensor, index: Tensor) -> State:
        def own(size: float | Tensor) -> float | Tensor:
            return size.to(z)[index] if isinstance(size, Tensor) and size.dim() else size

        return own(radius), own(step)

    def update(loss: Loss, z: Tensor, generator: Generator | None, state: State) -> tuple[Tensor, Tensor, State]:
        own_radius, own_step = (per_sample(size, z) for size in state)
        total, values = torch.zeros_like(z), torch.zeros(len(z), dtype=z.dtype, device=z.device)
        for _ in range(samples):
            lot = torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            near = z + own_radius * (2 * lot - 1)
            value, first = autograd(loss, near)
            mean = (norms(first, 1) / first[0].numel()).clamp_min(torch.finfo(z.dtype).tiny)
            second = autograd(loss, near - own_step * first / mean)[1]
            total += torch.lerp(first, second, penalty)
            values += value.to(values)
        if isinstance(loss, AttackLoss) and not loss.compared:
            return values / samples, total / samples, state
        with torch.no_grad():
            return loss(z), total / samples, state

    return Estimator(init, update)
