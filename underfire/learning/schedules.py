"""Schedules of the learning rate: functions of an optimiser and the number of steps that make torch's schedulers.

Any `lambda optimiser, steps: torch.optim.lr_scheduler.X(...)` is a schedule. A schedule may depend on nothing but the
number of steps done, so that a resumed training reaches the same rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR, SequentialLR

from underfire.errors import InputError
from underfire.validate import at_least_one

Schedule = Callable[[Optimizer, int], LRScheduler]
"""`(optimiser, steps) -> scheduler` for a training of `steps` steps; the scheduler moves after every step."""


def steps_down(at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """Multiply the rate by `factor` at each of these shares of the training."""
    if not all(0 < share < 1 for share in at):
        raise InputError(f"at must be shares of the training between 0 and 1, got {tuple(at)}")
    return lambda optimiser, steps: MultiStepLR(optimiser, [round(share * steps) for share in at], factor)


def cosine(low: float = 0.0) -> Schedule:
    """Lower the rate along half a cosine to `low` at the last step (Loshchilov and Hutter, SGDR, ICLR 2017)."""
    return lambda optimiser, steps: CosineAnnealingLR(optimiser, max(1, steps), low)


def one_cycle(rise: float = 0.3) -> Schedule:
    """Raise the rate to that of the optimiser in the first share `rise` of the training, then lower it to nearly 0.

    The momentum moves the other way. Source: Smith and Topin, Super-Convergence, 2019.
    """
    if not 0 <= rise <= 1:
        raise InputError(f"rise must be a share of the training from 0 to 1, got {rise}")

    def schedule(optimiser: Optimizer, steps: int) -> LRScheduler:
        tops = [group["lr"] for group in optimiser.param_groups]
        return OneCycleLR(optimiser, tops, total_steps=max(1, steps), pct_start=rise)

    return schedule


def warm_up(count: int, then: Schedule) -> Schedule:
    """Raise the rate linearly over the first `count` steps, and follow another schedule in the remaining steps."""
    at_least_one(count=count)

    def schedule(optimiser: Optimizer, steps: int) -> LRScheduler:
        rising = LinearLR(optimiser, 1 / count, total_iters=count)
        return SequentialLR(optimiser, [rising, then(optimiser, max(1, steps - count))], [count])

    return schedule
