"""The loop that trains every network of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire.learning.average import Average
from underfire.learning.checkpoints import Checkpoint, State
from underfire.learning.computation import Computation, Loss
from underfire.learning.keeper import Keeper
from underfire.learning.schedules import Schedule
from underfire.validate import at_least, at_least_one, default_generator


@dataclass(frozen=True)
class Report:
    """The state of a training after a step.

    Attributes:
        step: number of steps done.
        steps: number of all steps.
        losses: the mean loss of each objective in this step, without a graph.
        rate: learning rate of the step, that of the first group of parameters.
        metrics: what `validate` returned after this step; empty after other steps.
    """

    step: int
    steps: int
    losses: tuple[Tensor, ...]
    rate: float
    metrics: Mapping[str, float] = field(default_factory=dict)


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
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Report], None] | None = None,
) -> None:
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
        computation: how the gradient of a batch is computed.
        average: a moving average of the weights, which the network has in `validate` and at the end.
        validate: measures the network, for example on images that are not trained on.
        validate_every: number of steps between two calls of `validate`; the last step always has one.
        progress: called with the number of steps done and of all steps, before every step and at the end.
        watch: called with a `Report` after every step.

    Raises:
        ModelError: a loss or a weight is NaN or infinite; the message says in which step. The last checkpoint before
            it is kept.
        InputError: the checkpoint is damaged, of another training, or has more steps done than `steps`.
    """
    at_least(0, steps=steps)
    at_least_one(validate_every=validate_every)
    objectives = list(loss) if isinstance(loss, Sequence) else [loss]
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    generator = default_generator(generator, learned[0].device)
    seed = generator.initial_seed()
    computation.prepare(network)
    if average is not None:
        average.begin(network)
    state = State(network, optimiser, generator, batches, average)
    facts = {"average": repr(average), "precision": computation.precision}
    keeper = Keeper(checkpoint, state, learned, steps, facts | ({} if schedule is None else {"steps": str(steps)}))
    # continue from a checkpoint, or store the state before the first step
    start = keeper.begin()
    scheduler = None if schedule is None else schedule(optimiser, steps)
    if scheduler is not None:
        with warnings.catch_warnings():  # torch expects a step of the optimiser before each of these
            warnings.simplefilter("ignore")
            for _ in range(start):
                scheduler.step()
    with _own_global_generators(learned) as own, torch.enable_grad():
        for step in range(start, steps):
            if progress is not None:
                progress(step, steps)
            for each in own:
                each.manual_seed((seed + step) % 2**63)
            batch = batches(step, generator)
            rate = float(optimiser.param_groups[0]["lr"])
            # one step of the optimiser on each objective
            losses = []
            for objective in objectives:
                optimiser.zero_grad()
                mean, values = computation.differentiate(objective, batch, learned, generator)
                keeper.check(values, step)
                optimiser.step()
                losses.append(mean)
            if scheduler is not None:
                scheduler.step()
            if average is not None:
                average.update(step + 1)
            # measure, report, store
            metrics: Mapping[str, float] = {}
            if validate is not None and (step + 1 == steps or (step + 1) % validate_every == 0):
                with nullcontext() if average is None else average.applied():
                    metrics = validate()
            if watch is not None:
                watch(Report(step + 1, steps, tuple(losses), rate, metrics))
            keeper.after(step + 1)
    optimiser.zero_grad()
    if average is not None:
        average.exchange()
    if progress is not None:
        progress(steps, steps)


@contextmanager
def _own_global_generators(learned: Sequence[Tensor]) -> Iterator[list[Generator]]:
    """Yield torch's global generators, of the CPU and of the devices of the parameters; at the end they are restored.

    `torch.manual_seed` would seed those of all devices, and queue a call for each device that is not used yet.
    """
    devices = sorted({p.device.index for p in learned if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield [torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)]
