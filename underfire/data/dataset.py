"""Define what a data set is: a source of images, and a selection of them in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from underfire.errors import DataError
from underfire.records import Batch


class Source(Protocol):
    """The interface of a source of images, which decodes no image before `read`."""

    labels: tuple[str, ...] | None

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, in that order."""
        ...


class Dataset:
    """A selection of images in a fixed order; indexing decodes them, `subset` and `shard` do not.

    Args:
        name: the URI of the data.
        source: where images are read by their index.
        index: the images of the source that are selected, int64 `[n]`; None selects all.
        selections: descriptions of the selections made so far, for the fingerprint.
    """

    def __init__(
        self, name: str, source: Source, index: Tensor | None = None, selections: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.labels = source.labels
        self._source = source
        self._index = torch.arange(len(source)) if index is None else index
        self._selections = selections

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Batch:
        """Decode and return the images at `index` (an int, a slice, a list or an int64 tensor).

        Raises:
            DataError: an image cannot be read, images have different sizes, or a label is outside the classes.
            IndexError: there is no such image.
        """
        if isinstance(index, int):
            index = [index]
        chosen = self._index[index if isinstance(index, (slice, Tensor)) else torch.tensor(index, dtype=torch.int64)]
        batch = self._source.read(chosen.tolist())
        classes = None if self.labels is None else len(self.labels)
        wrong = batch.y < 0 if classes is None else (batch.y < 0) | (batch.y >= classes)
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            limit = "at least 0" if classes is None else f"from 0 to {classes - 1}"
            raise DataError(f"{self.name}: label {int(batch.y[first])} of image {batch.ids[first]!r} must be {limit}")
        return batch

    def __getitems__(self, index: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the images at `index` as pairs of an image `[C, H, W]` and its label, as torch's DataLoader asks."""
        return list(zip(*self[index], strict=True))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield all images in order, `batch_size` at a time; each batch is decoded when it is needed."""
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        return (self[start : start + batch_size] for start in range(0, len(self), batch_size))

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """Return `n` images drawn without replacement.

        The same `seed` draws the same images, and a smaller `n` draws the first of them.

        Raises:
            DataError: `n` is not from 1 to the number of images.
        """
        return self._select(draw(self.name, len(self), n, seed), f"n={n} seed={seed}")

    def shard(self, index: int, of: int) -> Dataset:
        """Return part `index` of `of` parts; every image is in exactly one part.

        Raises:
            DataError: `index` is not from 0 to `of - 1`.
        """
        if not 0 <= index < of:
            raise DataError(f"{self.name}: shard index must be from 0 to {of - 1}, got {index}")
        return self._select(torch.arange(index, len(self), of), f"shard={index}/{of}")

    def fingerprint(self) -> str:
        """Return a SHA-256 of the URI and the selections; it does not depend on the content of files."""
        return hashlib.sha256("\n".join((self.name, *self._selections)).encode()).hexdigest()

    def _select(self, order: Tensor, description: str) -> Dataset:
        return Dataset(self.name, self._source, self._index[order], (*self._selections, description))

    def __repr__(self) -> str:
        return f"Dataset({' '.join((self.name, *self._selections))!r}, {len(self)} images)"


def draw(name: str, count: int, n: int, seed: int) -> Tensor:
    """Return the indices of `n` of `count` images of the data `name`, drawn without replacement, int64 `[n]`.

    Raises:
        DataError: `n` is not from 1 to `count`.
    """
    if not 1 <= n <= count:
        raise DataError(f"{name}: cannot draw n={n} images, there are {count}")
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:n]


def stack(images: Sequence[Tensor], ids: Sequence[str]) -> Tensor:
    """Return images `[C, H, W]` as one batch `[B, C, H, W]`.

    Raises:
        DataError: their sizes differ.
    """
    for image, name in zip(images, ids, strict=True):
        if image.shape != images[0].shape:
            sizes = (tuple(i.shape[:0:-1]) for i in (images[0], image))
            first, other = (f"{width}x{height}" for width, height in sizes)
            raise DataError(
                f"images {ids[0]!r} ({first}) and {name!r} ({other}) differ in size; add ?size=224 to the URI"
            )
    return torch.stack(list(images))


def boxes(mask: Tensor) -> Tensor:
    """Return the smallest box around each mask `[B, 1, H, W]` (bool); the box of an empty mask is all zeros.

    Boxes are int64 `[B, 4]`, in pixels (left, top, right, bottom), right and bottom exclusive.
    """
    edges = []
    for covered in (mask.any(2).flatten(1), mask.any(3).flatten(1)):  # columns, rows
        length = covered.shape[1]
        first, last = covered.int().argmax(1), length - covered.flip(1).int().argmax(1)
        edges.append(torch.stack([first, torch.where(covered.any(1), last, 0)], 1))
    return torch.stack([edges[0][:, 0], edges[1][:, 0], edges[0][:, 1], edges[1][:, 1]], 1)
