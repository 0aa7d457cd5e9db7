"""Checkpoints of a training: the network, the optimiser, the generator, and the place in the epoch, in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire.errors import InputError
from underfire.learning.tensor_files import read_tensors, write_tensors
from underfire.validate import at_least_one


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


@dataclass(frozen=True)
class State:
    """Everything that changes in a training: after `load`, it goes on as if it had not been interrupted.

    Attributes:
        network: the network that is trained.
        optimiser: its optimiser.
        generator: the source of the random numbers.
        batches: the batches; if they have a `state_dict`, it is stored too.
    """

    network: nn.Module
    optimiser: Optimizer
    generator: Generator
    batches: Any

    def save(self, path: Path, step: int, facts: Mapping[str, str]) -> None:
        """Write the state after `step` steps."""
        memory = self.optimiser.state_dict()["state"]
        parts = {
            "network": self.network.state_dict(),
            **{f"optimiser.{i}": {k: v for k, v in each.items() if v is not None} for i, each in memory.items()},
            "batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else {},
        }
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        write_tensors(path, {**tensors, "generator": self.generator.get_state()}, {**facts, "step": str(step)})

    def load(self, path: Path, facts: Mapping[str, str]) -> int:
        """Read the state from a file, and return the number of steps done.

        Raises:
            InputError: the file is damaged, or of another network, or of a training with other facts.
        """
        tensors, found = read_tensors(path)
        for name, value in facts.items():
            if found.get(name) != value:
                raise InputError(f"checkpoint {str(path)!r} is of another training: its {name} differs; remove it")
        try:
            self.network.load_state_dict(_within(tensors, "network"))
            memory: dict[int, dict[str, Tensor]] = {}
            # "adam" is the name that the optimiser's memory had in files of version 0.1
            for key, tensor in {**_within(tensors, "adam"), **_within(tensors, "optimiser")}.items():
                i, name = key.split(".")
                memory.setdefault(int(i), {})[name] = tensor
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": memory})
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


def _within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part of a checkpoint, by their names in that part."""
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
