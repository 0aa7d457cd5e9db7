"""The loop that trains every network of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from underfire.errors import InputError
from underfire.learning.average import Average
from underfire.learning.checkpoints import Checkpoint, State
from underfire.learning.computation import Computation, Loss
from underfire.learning.guards import Guard
from underfire.learning.interrupts import interruptible
from underfire.learning.keeper import Keeper
from underfire.learning.reports import Outcome, Report
from underfire.learning.schedules import Schedule
from underfire.validate import at_least, at_least_one, default_generator

Watch = Callable[[Report], None]
"""A receiver of a report after every step: `JsonLines`, `TensorBoard`, `MLflow` or any function."""


def fit(
    network: nn.Module,
    optimiser: Optimizer,
    batches: Callable[[int, Generator], Any],
    loss: Loss | Sequence[Loss],
    *,
    steps: int,
    schedule: Schedule | None = None,
    generator: Generator | None = None,
    checkpoint: Checkpoint | None = None,
    computation: Computation = Computation(),  # noqa: B008 (frozen)
    average: Average | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    validate_every: int = 1,
    guards: Sequence[Guard] = (),
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | Sequence[Watch] | None = None,
) -> Outcome:
    """Train the parameters of `optimiser` in place; only they get gradients.

    The network stays in the mode (training or evaluation) that it is in; a loss or `validate` that needs another mode
    sets it. Layers that draw random numbers, such as dropout, get a seed of their own in every step, and the global
    generator is left as it was found.

    Args:
        network: the module whose parameters and buffers a checkpoint holds.
        optimiser: one of `torch.optim`, over the parameters that are trained.
        batches: returns the batch of a step; `Shuffled`, `Drawn` or any function of `(step, generator)`.
        loss: the objective. Several objectives alternate: each takes one step of the optimiser on every batch.
        steps: number of batches.
        schedule: how the learning rate changes; None leaves it as it is.
        generator: source of all random numbers; None is a new one with seed 0.
        checkpoint: where the state is stored. If the file exists, training continues from it and reaches the same
            weights as without the interruption.
        computation: how the gradient of a batch is computed. Of several processes, the first one measures, reports and
            stores; each draws the random numbers of its losses from a generator of its own.
        average: a moving average of the weights, which the network has in `validate` and at the end.
        validate: measures the network, for example on images that are not trained on.
        validate_every: number of steps between two calls of `validate`; the last step always has one.
        guards: parts that judge the metrics of every validation, in this order; they may stop the training or change
            its weights.
        progress: called with the number of steps done and of all steps, before every step and at the end.
        watch: functions that are called with a `Report` after every step.

    Returns:
        How the training ended, and what the guards noticed.

    Raises:
        ModelError: a loss or a weight is NaN or infinite; the message says in which step. The last checkpoint before
            it is kept.
        InputError: the checkpoint is damaged, of another training, or has more steps done than `steps`; or there
            are guards without `validate`.
        KeyboardInterrupt: Ctrl-C was pressed. With a checkpoint, the step is finished and the state is stored; a second
            Ctrl-C interrupts at once.
    """
    at_least(0, steps=steps)
    at_least_one(validate_every=validate_every)
    if guards and validate is None:
        raise InputError("guards judge the metrics of validate, which is None; pass for example AttackedAccuracy")
    processes = computation.processes
    objectives = list(loss) if isinstance(loss, Sequence) else [loss]
    watchers = [] if watch is None else list(watch) if isinstance(watch, Sequence) else [watch]
    if progress is None or processes.rank > 0:
        progress = _tell_nobody
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    generator = default_generator(generator, learned[0].device)
    seed = generator.initial_seed()
    computation.prepare(network)
    state = State(network, optimiser, generator, batches, average, guards)
    facts = {"average": repr(average), "precision": computation.precision}
    facts |= {} if schedule is None else {"steps": str(steps)}
    keeper = Keeper(checkpoint, state, learned, steps, facts, processes)
    # continue from a checkpoint, or store the state before the first step
    done, notes = keeper.begin(), list[str]()
    scheduler = None if schedule is None else _moved(schedule(optimiser, steps), done)
    with (
        _own_global_generators(learned) as own,
        interruptible(checkpoint is not None) as interrupted,
        torch.enable_grad(),
    ):
        while done < steps and not state.stopped:
            progress(done, steps)
            for each in own:
                each.manual_seed(processes.seed(seed + done))
            batch = batches(done, generator)
            source = processes.generator(generator, seed + done)
            rate = float(optimiser.param_groups[0]["lr"])
            # one step of the optimiser on each objective
            losses = []
            for objective in objectives:
                optimiser.zero_grad()
                mean, values = computation.differentiate(objective, batch, learned, source)
                keeper.check(mean, values, done)
                optimiser.step()
                losses.append(mean)
            computation.join_buffers(network)
            done += 1
            if scheduler is not None:
                scheduler.step()
            if average is not None:
                average.update(done)
            # measure, judge, report, store
            report = Report(done, steps, tuple(losses), rate)
            if validate is not None and (done == steps or done % validate_every == 0):
                with state.averaged():
                    report = replace(report, metrics=processes.from_first(validate))
                verdicts = [guard.judge(report, state) for guard in guards]
                state.stopped = any(verdict.stop for verdict in verdicts)
                report = replace(report, notes=tuple(verdict.note for verdict in verdicts if verdict.note))
                notes += report.notes
            for tell in watchers if processes.rank == 0 else ():
                tell(report)
            keeper.after(done, interrupted=processes.any(interrupted()))
    optimiser.zero_grad()
    state.end()
    progress(steps, steps)
    return Outcome(done, state.stopped, tuple(notes))


def _tell_nobody(done: int, total: int) -> None:
    """Do nothing with the progress."""


def _moved(scheduler: LRScheduler, steps: int) -> LRScheduler:
    """Return the scheduler after a number of steps."""
    with warnings.catch_warnings():  # torch expects a step of the optimiser before each of these
        warnings.simplefilter("ignore")
        for _ in range(steps):
            scheduler.step()
    return scheduler


@contextmanager
def _own_global_generators(learned: Sequence[Tensor]) -> Iterator[list[Generator]]:
    """Yield torch's global generators, of the CPU and of the devices of the parameters; at the end they are restored.

    `torch.manual_seed` would seed those of all devices, and queue a call for each device that is not used yet.
    """
    devices = sorted({p.device.index for p in learned if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield [torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)]
