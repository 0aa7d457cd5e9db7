"""The computation of the gradient of a batch: at once or in parts, its precision and its memory format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn

from underfire.errors import InputError, shown
from underfire.learning.processes import ALONE, Processes
from underfire.validate import at_least_one, check_choice

Loss = Callable[[Any, Generator], Tensor]
"""`(batch, generator) -> loss`, one number or one per image `[B]`, whose mean is minimised."""

Precision = Literal["full", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Computation:
    """The computation of the gradient of the mean loss of a batch; the mean is the same with every setting.

    Attributes:
        accumulate: number of parts that a batch is split into. Their gradients are added up, so that a part needs less
            memory. Batch norms normalise over a part.
        precision: `"bfloat16"` computes losses under torch's autocast: matrix products and convolutions are in
            bfloat16, weights and their gradients stay as they are.
        channels_last: whether the weights of convolutions, and by them the feature maps, have the channels as the last
            dimension in memory, which many processors compute faster. The network keeps this format afterwards.
        processes: the processes that the rows of a batch are divided among, by `start_processes`.
    """

    accumulate: int = 1
    precision: Precision = "full"
    channels_last: bool = False
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        at_least_one(accumulate=self.accumulate)
        check_choice(get_args(Precision), precision=self.precision)

    def prepare(self, network: nn.Module) -> None:
        """Change the memory format of a network that is going to be trained."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def differentiate(
        self, loss: Loss, batch: Any, learned: Sequence[Tensor], generator: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Add the gradient of the mean loss of a batch to `.grad` of the parameters `learned`.

        Returns:
            The mean loss, and the values of the loss for the parts of this process, without a graph.

        Raises:
            InputError: a batch without tensors is to be split.
        """
        mean, values = torch.zeros((), device=learned[0].device), []
        for part, share in self._parts(batch):
            with self._autocast(learned[0].device.type):
                value = loss(part, generator)
            part_mean = value.mean() if share == 1 else share * value.mean()
            part_mean.backward(inputs=learned)
            mean = mean + part_mean.detach()
            values.append(value.detach())
        if self.processes.count > 1:
            for weight in learned:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            self.processes.add_up([mean, *(weight.grad for weight in learned if weight.grad is not None)])
        return mean, values

    def join_buffers(self, network: nn.Module) -> None:
        """Give the running statistics of batch norms their mean over the processes."""
        if self.processes.count > 1:
            buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
            self.processes.add_up(buffers)
            for buffer in buffers:
                buffer.div_(self.processes.count)

    def _parts(self, batch: Any) -> Iterator[tuple[Any, float]]:
        """Yield the parts of a batch that belong to this process, and the share of its rows that each has."""
        if self.accumulate == self.processes.count == 1:
            yield batch, 1.0
            return
        count = _rows(batch)
        if count is None:
            raise InputError(f"only batches of tensors can be computed in parts, got {shown(batch)}")
        first, last = self.processes.rows(count)
        ends = [first + (last - first) * i // self.accumulate for i in range(self.accumulate + 1)]
        for start, end in pairwise(ends):
            if start < end:
                yield _slice(batch, start, end), (end - start) / count

    def _autocast(self, device: str) -> AbstractContextManager[Any]:
        """Return the context of the losses.

        Weights that autocast has converted are not kept: those of a block without gradients would have no gradient.
        """
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, cache_enabled=False)


def _rows(batch: Any) -> int | None:
    """Return the number of rows of the first tensor of a batch; None if it has none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    if isinstance(batch, tuple | list):
        return next((count for each in batch if (count := _rows(each)) is not None), None)
    return None


def _slice(batch: Any, start: int, end: int) -> Any:
    """Return rows of every tensor of a batch; what is not a tensor stays as it is."""
    if isinstance(batch, Tensor):
        return batch[start:end] if batch.dim() else batch
    if isinstance(batch, tuple | list):
        return tuple(_slice(each, start, end) for each in batch)
    return batch
