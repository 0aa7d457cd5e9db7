"""Checkpoints of a training: network, average, optimiser, generator, place in the epoch, guards, in safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from underfire.errors import InputError
from underfire.learning.average import Average
from underfire.learning.guards import Guard
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
        guards: the guards of the training.
        stopped: whether a guard has ended the training.
    """

    network: nn.Module
    optimiser: Optimizer
    generator: Generator
    batches: Any
    average: Average | None = None
    guards: Sequence[Guard] = ()
    stopped: bool = False

    def begin(self) -> None:
        """Start the average and the guards at the present weights."""
        if self.average is not None:
            self.average.begin(self.network)
        for guard in self.guards:
            guard.begin(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the network has its averaged weights, if there is an average."""
        return nullcontext() if self.average is None else self.average.applied()

    def end(self) -> None:
        """Give the network the weights that the training ends with."""
        if self.average is not None:
            self.average.exchange()
        for guard in self.guards:
            guard.end(self)

    def measured_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that the network has in a validation, averaged if there is an average."""
        with self.averaged():
            return {name: weight.clone() for name, weight in self.network.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights, their average, and the memory of the optimiser."""
        return {name: tensor.clone() for name, tensor in self._weights().items()}

    def save(self, path: Path, step: int, facts: Mapping[str, str]) -> None:
        """Write the state after `step` steps."""
        parts = {name: guard.state_dict() for name, guard in self._named_guards().items()}
        parts["batches"] = self.batches.state_dict() if hasattr(self.batches, "state_dict") else {}
        tensors = {**self._weights(), **_joined(parts), "generator": self.generator.get_state()}
        write_tensors(path, tensors, {**facts, "step": str(step), "stopped": str(self.stopped)})

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
            self.set_weights(tensors)
            if "generator" in tensors:
                self.generator.set_state(tensors["generator"])
            if hasattr(self.batches, "load_state_dict"):
                self.batches.load_state_dict(_within(tensors, "batches"))
            for name, guard in self._named_guards().items():
                if held := _within(tensors, name):  # a guard may be added later
                    guard.load_state_dict(held)
            self.stopped = found.get("stopped") == "True"
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

    def set_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the network, the average and the optimiser the tensors of a checkpoint or of `weights`."""
        self.network.load_state_dict(_within(tensors, "network"))
        if self.average is not None:
            self.average.load_state_dict(_within(tensors, "average"))
        memory: dict[int, dict[str, Tensor]] = {}
        # "adam" is the name that the optimiser's memory had in files of version 0.1
        for key, tensor in {**_within(tensors, "adam"), **_within(tensors, "optimiser")}.items():
            i, name = key.split(".")
            memory.setdefault(int(i), {})[name] = tensor.clone()  # the optimiser changes its memory in place
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": memory})

    def _named_guards(self) -> dict[str, Guard]:
        """Return the guards by the names of their parts in a checkpoint."""
        return {f"guard.{i}.{type(guard).__name__}": guard for i, guard in enumerate(self.guards)}


def _joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all parts of a checkpoint, each with the name of its part before its own."""
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def _within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one part of a checkpoint, by their names in that part."""
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
