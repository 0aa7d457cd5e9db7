"""Batches of a training: how the images of every step are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from underfire.errors import DataError
from underfire.validate import at_least_one

if TYPE_CHECKING:
    from underfire.data import Dataset

Augment = Callable[[Tensor, Generator], Tensor]
"""`(x, generator) -> x'`: random changes of the images of a batch."""


@dataclass(eq=False, kw_only=True)
class _Batches:
    """Rows of the data, by their index.

    Attributes:
        data: a data set, a tensor, or tensors of one length, such as images and labels.
        batch_size: number of rows in a batch.
        device: the device of the batches; None leaves them where they are.
        augment: random changes of images `[B, C, H, W]`, the first tensor of a batch.
    """

    data: Dataset | Tensor | Sequence[Tensor] = field(kw_only=False)
    batch_size: int = field(kw_only=False)
    device: torch.device | str | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        at_least_one(batch_size=self.batch_size)
        if self.count == 0:
            raise DataError("the training data is empty; it needs at least one image")

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.data[0]) if isinstance(self.data, Sequence) else len(self.data)

    def _rows(self, rows: Tensor, generator: Generator) -> Any:
        """Return the rows: a tensor if the data is one, else images and labels, or as many tensors as the data has."""
        if isinstance(self.data, Tensor):
            return self._changed(self.data[rows.to(self.data.device)], generator)
        tensors = (
            [t[rows.to(t.device)] for t in self.data] if isinstance(self.data, Sequence) else self.data[rows.cpu()]
        )
        first, *others = tensors
        moved = others if self.device is None else [tensor.to(self.device) for tensor in others]
        return (self._changed(first, generator), *moved)

    def _changed(self, x: Tensor, generator: Generator) -> Tensor:
        x = x if self.augment is None else self.augment(x, generator)
        return x if self.device is None else x.to(self.device)


@dataclass(eq=False, kw_only=True)
class Shuffled(_Batches):
    """Batches of epochs: each epoch uses every row once, in a new random order; the last batch may be smaller."""

    _order: Tensor | None = field(default=None, init=False)

    @property
    def per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return -(-self.count // self.batch_size)

    def __call__(self, step: int, generator: Generator) -> Any:
        """Return the batch of a step, counted from 0."""
        place = step % self.per_epoch
        if place == 0 or self._order is None:
            self._order = torch.randperm(self.count, generator=generator, device=generator.device)
        return self._rows(self._order[place * self.batch_size : (place + 1) * self.batch_size], generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the order of the present epoch."""
        return {} if self._order is None else {"order": self._order}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue an epoch in the order that `state_dict` returned.

        Raises:
            ValueError: the order is that of another number of rows.
        """
        if "order" in state and len(state["order"]) != self.count:
            raise ValueError(f"its epoch has {len(state['order'])} images, the data has {self.count}")
        self._order = state.get("order")


@dataclass(eq=False, kw_only=True)
class Drawn(_Batches):
    """Batches drawn with replacement; every step seeds the generator anew, so it does not depend on earlier steps.

    Attributes:
        seed: the seed of the training.
        offset: added to the seeds of the steps, so that two phases of one training draw different numbers.
    """

    seed: int
    offset: int = 0

    def __call__(self, step: int, generator: Generator) -> Any:
        """Return the batch of a step, counted from 0; the loss draws on from the same generator."""
        generator.manual_seed((self.seed * 1_000_003 + step + self.offset) % 2**63)
        rows = torch.randint(self.count, (self.batch_size,), generator=generator, device=generator.device)
        return self._rows(rows, generator)
