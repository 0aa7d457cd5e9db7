"""The images of a training: kept in memory if they fit, in batches that know the number of their step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from underfire.data import Dataset
from underfire.data.dataset import draw
from underfire.errors import DataError
from underfire.learning import Shuffled
from underfire.models.loaders import content_of
from underfire.validate import check_labels

Data = Dataset | tuple[Tensor, Tensor]
"""A data set, or images `[n, ...]` and their labels, int64 `[n]`."""

KEPT = 4 * 2**30
"""Images that take at most so many bytes are decoded once and kept in memory."""


def opened(data: Data) -> Data:
    """Return the images and labels of the data as tensors if they fit into `KEPT`, and else the data set.

    Raises:
        DataError: the data is empty, has labels of one class only, or the labels are not those of the images.
    """
    if isinstance(data, Dataset):
        if len(data) == 0:
            raise DataError(f"{data.name}: the training data is empty; it needs images of at least two classes")
        if len(data) * data[:1].x.nbytes > KEPT:
            return data
        batch = data[:]
        data = batch.x, batch.y
    x, y = data
    check_labels(x, y)
    present = y.unique().tolist()
    if len(present) < 2:
        found = f"only class {present[0]}" if present else "no images"
        raise DataError(f"training needs images of at least two classes, the data has {found}")
    return x, y


def split_off(data: Data, count: int, seed: int) -> tuple[Data, tuple[Tensor, Tensor]]:
    """Return the data without `count` images, and these images, drawn by `seed`.

    Raises:
        DataError: there are not more images than that.
    """
    total = len(data[0]) if isinstance(data, tuple) else len(data)
    if count >= total:
        raise DataError(f"held_out must be less than the number of images, {total}, got {count}")
    if isinstance(data, Dataset):
        kept = data.subset(count, seed)[:]
        return data.rest(count, seed), (kept.x, kept.y)
    order = draw("the training data", total, total, seed)
    x, y = data
    kept_rows, rows = order[:count].to(x.device), order[count:].to(x.device)
    return (x[rows], y[rows]), (x[kept_rows], y[kept_rows])


def fingerprint_of(data: Data) -> str:
    """Return a SHA-256 that tells data sets apart."""
    if isinstance(data, Dataset):
        return data.fingerprint()
    return hashlib.sha256(b"".join(map(content_of, data))).hexdigest()


class Numbered:
    """Batches of epochs that remember the number of the step they belong to.

    Args:
        batches: the batches.
        replays: how many steps in a row get the same batch.

    Attributes:
        step: the number of the step of the last batch, from 0.
        shift: a perturbation that lasts from step to step, shaped like a batch; None without one.
    """

    def __init__(self, batches: Shuffled, replays: int = 1) -> None:
        self.batches, self.replays, self.step = batches, replays, 0
        self.shift: Tensor | None = None
        self._last: Any = None

    def __call__(self, step: int, generator: Generator) -> Any:
        """Return the batch of a step."""
        self.step = step
        if step % self.replays == 0 or self._last is None:
            self._last = self.batches(step // self.replays, generator)
        return self._last

    def state_dict(self) -> dict[str, Tensor]:
        """Return the order of the epoch and, where they are needed again, the batch and the perturbation."""
        state = dict(self.batches.state_dict())
        if self.replays > 1 and self._last is not None:
            state |= {"x": self._last[0], "y": self._last[1]}
        return state if self.shift is None else {**state, "shift": self.shift.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self.batches.load_state_dict({name: value for name, value in state.items() if name == "order"})
        device = self.batches.device or "cpu"
        if "x" in state:
            self._last = state["x"].to(device), state["y"].to(device)
        if self.shift is not None and "shift" in state:
            with torch.no_grad():
                self.shift.copy_(state["shift"])
