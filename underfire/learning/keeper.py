"""Store the state of a training while it runs, and stop it at a number that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.errors import InputError, ModelError
from underfire.learning.checkpoints import Checkpoint, State


@dataclass
class Keeper:
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

    def check(self, values: Sequence[Tensor], step: int) -> None:
        """Raise ModelError if a loss is NaN or infinite."""
        finite = torch.isfinite(torch.cat([value.flatten() for value in values]))
        if not bool(finite.all()):
            share = f" for {int((~finite).sum())} of {len(finite)} images" if values[0].dim() else ""
            raise ModelError(f"the loss is NaN or infinite{share} in step {step + 1} of {self.steps}{self._advice()}")

    def _advice(self) -> str:
        kept = "" if self.checkpoint is None else f"; {self.checkpoint.path} holds the state after step {self.stored}"
        return f"{kept}; a smaller learning rate may help"
