"""Checkpoints of a training: network, average, optimiser, generator, and place in the epoch, in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire.errors import InputError
from underfire.learning.average import Average
from underfire.learning.tensor_files import read_tensors, write_tensors
from underfire.validate import at_least_one

_USUAL = {"average": "None", "precision": "full"}  # facts of the loop that files of earlier versions do not state


@dataclass(frozen=True)
class Checkpoint:
    """The file that a training stores its state in, and how often it does.

    Attributes:
        path: the file; if it exists, the training continues from it.
        facts: what determines the weights, such as the options and the fingerprint of the data. A checkpoint with
            other facts is refused.
        every: number of steps between two writes; the last step is always written.
    """

    path: Path
    facts: Mapping[str, str] = field(default_factory=dict)
    every: int = 50

    def __post_init__(self) -> None:
        at_least_one(every=self.every)


@dataclass
class State:
    """Everything that changes in a training: after `load`, it goes on as if it had not been interrupted.

    Attributes:
        network: the network that is trained.
        optimiser: its optimiser.
        generator: the source of the random numbers.
        batches: the batches; if they have a `state_dict`, it is stored too.
        average: the moving average of the weights; None if there is none.
    """

    network: nn.Module
    optimiser: Optimizer
    generator: Generator
    batches: Any
    average: Average | None = None

    def save(self, path: Path, step: int, facts: Mapping[str, str]) -> None:
        """Write the state after `step` steps."""
        parts = {"batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else {}}
        tensors = {**self._weights(), **_joined(parts), "generator": self.generator.get_state()}
        write_tensors(path, tensors, {**facts, "step": str(step)})

    def load(self, path: Path, facts: Mapping[str, str]) -> int:
        """Read the state from a file, and return the number of steps done.

        Raises:
            InputError: the file is damaged, or of another network, or of a training with other facts.
        """
        tensors, found = read_tensors(path)
        for name, value in facts.items():
            if found.get(name, _USUAL.get(name)) != value:
                raise InputError(f"checkpoint {str(path)!r} is of another training: its {name} differs; remove it")
        try:
            self._set_weights(tensors)
            if "generator" in tensors:
                self.generator.set_state(tensors["generator"])
            if hasattr(self.batches, "load_state_dict"):
                self.batches.load_state_dict(_within(tensors, "batches"))
            return int(found["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"checkpoint {str(path)!r} is damaged or of another network; remove it: {reason}"
            ) from None

    def _weights(self) -> dict[str, Tensor]:
        """Return the tensors that a step of the optimiser changes: the weights, their average, and its memory."""
        memory = self.optimiser.state_dict()["state"]
        return _joined(
            {
                "network": self.network.state_dict(),
                "average": {} if self.average is None else self.average.state_dict(),
                **{f"optimiser.{i}": {k: v for k, v in each.items() if v is not None} for i, each in memory.items()},
            }
        )

    def _set_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the network, the average and the optimiser the tensors that `_weights` returned."""
        self.network.load_state_dict(_within(tensors, "network"))
        if self.average is not None:
            self.average.load_state_dict(_within(tensors, "average"))
        memory: dict[int, dict[str, Tensor]] = {}
        # "adam" is the name that the optimiser's memory had in files of version 0.1
        for key, tensor in {**_within(tensors, "adam"), **_within(tensors, "optimiser")}.items():
            i, name = key.split(".")
            memory.setdefault(int(i), {})[name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": memory})


def _joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all parts of a checkpoint, each with the name of its part before its own."""
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def _within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part of a checkpoint, by their names in that part."""
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
