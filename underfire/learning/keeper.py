"""Store the state of a training while it runs, and stop it at a number that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError, ModelError
from underfire.learning.checkpoints import Checkpoint, State
from underfire.learning.processes import Processes


@dataclass
class Keeper:
    """Writes and reads the checkpoints of a training, and stops it at a loss or a weight that is not finite."""

    checkpoint: Checkpoint | None
    state: State
    learned: Sequence[Tensor]
    steps: int
    facts: Mapping[str, str]
    processes: Processes
    stored: int = 0

    def begin(self) -> int:
        """Load the checkpoint, or write the first one, and return the number of steps done."""
        self.state.begin()
        if self.checkpoint is None:
            return 0
        self.facts = {**self.checkpoint.facts, **self.facts}
        if not self.processes.from_first(self.checkpoint.path.is_file):
            self._store(0)
            return 0
        self.stored = self.state.load(self.checkpoint.path, self.facts)
        if self.stored > self.steps:
            raise InputError(
                f"checkpoint {str(self.checkpoint.path)!r} has {self.stored} steps done, more than steps={self.steps}"
            )
        return self.stored

    def after(self, step: int, interrupted: bool = False) -> None:
        """Check the weights, and write the state after `step` steps, if it is time to.

        Raises:
            ModelError: a weight is NaN or infinite. KeyboardInterrupt: the training is interrupted; its message says
                where the state is.
        """
        due = self.checkpoint is not None and step % self.checkpoint.every == 0
        if due or interrupted or step == self.steps or self.state.stopped:
            if not bool(torch.stack([torch.isfinite(weight).all() for weight in self.learned]).all()):
                raise ModelError(f"a weight is NaN or infinite after step {step} of {self.steps}{self._advice()}")
            self._store(step)
        if interrupted and self.checkpoint is not None:
            place = f"the checkpoint {self.checkpoint.path} continues from there"
            raise KeyboardInterrupt(f"interrupted after step {step} of {self.steps}; a training with {place}")

    def check(self, mean: Tensor, values: Sequence[Tensor], step: int) -> None:
        """Raise ModelError if a loss is NaN or infinite.

        Args:
            mean: the mean loss of a batch, over all processes.
            values: the losses of the parts of this process.
            step: number of steps done before.
        """
        if not bool(torch.isfinite(mean)):
            each = torch.cat([value for value in values if value.dim()] or [torch.zeros(0)])
            wrong = int((~torch.isfinite(each)).sum())
            share = f" for {wrong} of {len(each)} images" if wrong else ""
            raise ModelError(f"the loss is NaN or infinite{share} in step {step + 1} of {self.steps}{self._advice()}")

    def _store(self, step: int) -> None:
        """Write the state after `step` steps."""
        if self.checkpoint is not None:
            if self.processes.rank == 0:
                self.state.save(self.checkpoint.path, step, self.facts)
            self.stored = step

    def _advice(self) -> str:
        kept = "" if self.checkpoint is None else f"; {self.checkpoint.path} holds the state after step {self.stored}"
        return f"{kept}; a smaller learning rate may help"
