"""The loop that trains every network of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire.errors import InputError, ModelError
from underfire.learning.checkpoints import Checkpoint, State
from underfire.learning.schedules import Schedule
from underfire.validate import at_least, at_least_one, default_generator

Loss = Callable[[Any, Generator], Tensor]
"""`(batch, generator) -> loss`, one number or one per image `[B]`, whose mean is minimised."""


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
    state = State(network, optimiser, generator, batches)
    keeper = _Keeper(checkpoint, state, learned, steps, {} if schedule is None else {"steps": str(steps)})
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
                value = objective(batch, generator)
                keeper.check(value, step)
                optimiser.zero_grad()
                value.mean().backward(inputs=learned)
                optimiser.step()
                losses.append(value.detach().mean())
            if scheduler is not None:
                scheduler.step()
            # measure, report, store
            last = step + 1 == steps
            metrics = {} if validate is None or not (last or (step + 1) % validate_every == 0) else validate()
            if watch is not None:
                watch(Report(step + 1, steps, tuple(losses), rate, metrics))
            keeper.after(step + 1)
    optimiser.zero_grad()
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


@dataclass
class _Keeper:
    """Writes and reads the checkpoints of a training, and stops it at a loss or a weight that is not finite."""

    checkpoint: Checkpoint | None
    state: State
    learned: Sequence[Tensor]
    steps: int
    facts: Mapping[str, str]
    stored: int = 0

    def begin(self) -> int:
        """Load the checkpoint, or write the first one, and return the number of steps done."""
        if self.checkpoint is None:
            return 0
        self.facts = {**self.checkpoint.facts, **self.facts}
        if not self.checkpoint.path.is_file():
            self.state.save(self.checkpoint.path, 0, self.facts)
            return 0
        self.stored = self.state.load(self.checkpoint.path, self.facts)
        if self.stored > self.steps:
            raise InputError(
                f"checkpoint {str(self.checkpoint.path)!r} has {self.stored} steps done, more than steps={self.steps}"
            )
        return self.stored

    def after(self, step: int) -> None:
        """Check the weights, and write the state after `step` steps, if it is time to."""
        due = self.checkpoint is not None and step % self.checkpoint.every == 0
        if not (due or step == self.steps):
            return
        if not bool(torch.stack([torch.isfinite(weight).all() for weight in self.learned]).all()):
            raise ModelError(f"a weight is NaN or infinite after step {step} of {self.steps}{self._advice()}")
        if self.checkpoint is not None:
            self.state.save(self.checkpoint.path, step, self.facts)
            self.stored = step

    def check(self, value: Tensor, step: int) -> None:
        """Raise ModelError if a loss is NaN or infinite."""
        finite = torch.isfinite(value.detach())
        if not bool(finite.all()):
            share = f" for {int((~finite).sum())} of {len(value)} images" if value.dim() else ""
            raise ModelError(f"the loss is NaN or infinite{share} in step {step + 1} of {self.steps}{self._advice()}")

    def _advice(self) -> str:
        kept = "" if self.checkpoint is None else f"; {self.checkpoint.path} holds the state after step {self.stored}"
        return f"{kept}; a smaller learning rate may help"
