"""Define data sets: a source of images, and a selection of its images in a fixed order."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from underfire import classes
from underfire.errors import DataError
from underfire.records import Batch

_MODEL = "the model"
_BY_NAME = "The labels of the data were put in the model's order by the names of the classes."
_BY_ORDER = "Labels and classes were matched by their order alone"
_MODEL_UNNAMED = "The model has no class names to compare these with; `labels` under `model` states them."
_DATA_UNNAMED = "The data has no class names to compare these with; `classes` under `data` states them."
_ANSWERED = "The images have no labels: the model's own answers are taken for right, so its accuracy on them is 100 %."
_ADVICE = "name the data's classes by `classes` under `data` (a list, or a mapping of old to new names)"


class Source(Protocol):
    """The interface of a source of images, which decodes no image before `read`.

    A source may also have `notes`, sentences about the data that a reader of the results must know, and `labelled`,
    which is False if the labels are not known; they are all -1 then.
    """

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
        source: reads images by their index.
        index: the selected images of the source, int64 `[n]`; None selects all.
        selections: descriptions of the selections so far, for the fingerprint.

    Attributes:
        labels: names of the classes; None if they are not known.
        labelled: whether the labels of the images are known; if not, `answered_by` must be called before indexing.
        notes: sentences about the data that a reader of the results must know.
    """

    def __init__(
        self, name: str, source: Source, index: Tensor | None = None, selections: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.labels = source.labels and tuple(map(classes.printable, source.labels))
        self.labelled: bool = getattr(source, "labelled", True)
        self.notes: tuple[str, ...] = getattr(source, "notes", ())
        self._source = source
        self._index = torch.arange(len(source)) if index is None else index
        self._selections = selections
        self._order: Tensor | None = None  # the new number of every class of the source
        self._answer: Callable[[Tensor], Tensor] | None = None  # the labels of images without labels

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
        batch = replace(batch, ids=tuple(map(classes.printable, batch.ids)))
        if self._answer is not None:
            return replace(batch, y=self._answer(batch.x)) if len(batch) else batch
        if not self.labelled:
            raise DataError(f"{self.name}: the images have no labels; `answered_by` takes those that a model answers")
        known = self.labels if self._order is None else self._order
        wrong = batch.y < 0 if known is None else (batch.y < 0) | (batch.y >= len(known))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            limit = "at least 0" if known is None else f"from 0 to {len(known) - 1}"
            raise DataError(f"{self.name}: label {int(batch.y[first])} of image {batch.ids[first]!r} must be {limit}")
        return batch if self._order is None else replace(batch, y=self._order[batch.y])

    def __getitems__(self, index: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the images at `index` as pairs `(image [C, H, W], label)`, for torch's DataLoader."""
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
        return self.select(draw(self.name, len(self), n, seed), f"n={n} seed={seed}")

    def rest(self, n: int, seed: int = 0) -> Dataset:
        """Return the images that `subset(n, seed)` does not draw, in random order.

        Raises:
            DataError: `n` is not from 1 to the number of images less one.
        """
        if not 1 <= n < len(self):
            raise DataError(f"{self.name}: n must be from 1 to {len(self) - 1}, so that images are left, got {n}")
        return self.select(draw(self.name, len(self), len(self), seed)[n:], f"rest of n={n} seed={seed}")

    def shard(self, index: int, of: int) -> Dataset:
        """Return part `index` of `of` parts; every image is in exactly one part.

        Raises:
            DataError: `index` is not from 0 to `of - 1`.
        """
        if not 0 <= index < of:
            raise DataError(f"{self.name}: shard index must be from 0 to {of - 1}, got {index}")
        return self.select(torch.arange(index, len(self), of), f"shard={index}/{of}")

    def fingerprint(self) -> str:
        """Return a SHA-256 of the URI and the selections; it does not depend on the content of files."""
        return hashlib.sha256("\n".join((self.name, *self._selections)).encode()).hexdigest()

    def named(self, names: Sequence[str] | Mapping[str, str]) -> Dataset:
        """Return the data with other class names.

        A list states the names in the order of the class numbers. If the classes already have names, they are
        renumbered in the order of the list. A mapping gives some of the classes another name.

        Raises:
            DataError: a class of the data is not in the list, or the data has no class of a name in the mapping.
        """
        if not isinstance(names, Mapping):
            return self._ordered(tuple(map(classes.printable, names)), "the list of classes")
        names = {classes.printable(old): classes.printable(new) for old, new in names.items()}
        if unknown := [name for name in names if name not in (self.labels or ())]:
            raise DataError(f"the data has no class {unknown[0]!r}; it has {classes.listing(self.labels or ())}")
        return self._with(labels=tuple(names.get(name, name) for name in self.labels or ()))

    def ordered_as(self, names: Sequence[str] | None) -> Dataset:
        """Return the data with its classes in the order of a model whose classes have these names.

        Classes are compared by their names, as in `underfire.classes.match`. If the data or the model has no names,
        the classes keep their order, and `notes` says so.

        Raises:
            DataError: both have names, and a class of the data is not one of the model's.
        """
        if not self.labelled:
            return self._with(labels=self.labels if names is None else tuple(map(classes.printable, names)))
        if names is None or classes.are_numbers(names):
            if self.labels is None or classes.are_numbers(self.labels):
                return self
            return self._with(notes=(*self.notes, f"{_BY_ORDER}: {classes.listing(self.labels)}. {_MODEL_UNNAMED}"))
        names = tuple(map(classes.printable, names))
        if self.labels is None or classes.are_numbers(self.labels):
            noted = f"{_BY_ORDER}: {classes.listing(names)}. {_DATA_UNNAMED}"
            return self._with(labels=names, notes=(*self.notes, noted))
        return self._ordered(names, _MODEL)

    def without_labels(self) -> Dataset:
        """Return the data as if the labels of the images, and their classes, were not known."""
        return self._with(labelled=False, labels=None, _order=None)

    @property
    def answered(self) -> bool:
        """Return whether the labels are the predictions of a model, because the images have no labels."""
        return self._answer is not None

    def answered_by(self, answer: Callable[[Tensor], Tensor]) -> Dataset:
        """Return the data with the labels that `answer` gives to images `[B, C, H, W]`, int64 `[B]`."""
        return self._with(_answer=answer, labelled=True, notes=(*self.notes, _ANSWERED))

    def noted(self, *notes: str) -> Dataset:
        """Return the data with further `notes`."""
        return self._with(notes=(*self.notes, *notes))

    def check(self) -> None:
        """Read every image once; raise a DataError that names all images that cannot be read, or the sizes found."""
        failures, sizes = self._failures()
        if failures:
            skip = "unreadable=skip in the URI leaves them out"
            raise DataError(f"{unreadable(list(failures.values()), len(self))}; {skip}")
        if len(sizes) > 1:
            found = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(6))
            raise DataError(f"{self.name}: images differ in size: {found}; add ?size=224 to the URI")

    def readable(self) -> Dataset:
        """Return the data without the images that cannot be read; `notes` says how many and which they are."""
        failures, _ = self._failures()
        if not failures:
            return self
        left = torch.tensor([i for i in range(len(self)) if i not in failures], dtype=torch.int64)
        verb = "is" if len(failures) == 1 else "are"
        lost = f"{len(failures)} of {len(self)} images cannot be read and {verb} left out"
        chosen = self.select(left, f"readable={len(left)}")
        return chosen._with(notes=(*self.notes, f"{lost}: {_listed(list(failures.values()), most=3)}."))

    def _failures(self) -> tuple[dict[int, str], Counter[tuple[int, int]]]:
        """Return why images cannot be read, by position, and how many of the others have each (height, width)."""
        failures: dict[int, str] = {}
        sizes: Counter[tuple[int, int]] = Counter()
        for i, place in enumerate(self._index.tolist()):
            try:
                height, width = self._source.read([place]).x.shape[-2:]
                sizes[height, width] += 1
            except DataError as error:
                failures[i] = str(error)
        return failures, sizes

    def _ordered(self, names: tuple[str, ...], whose: str) -> Dataset:
        """Return the data with its classes numbered as in `names`."""
        if self.labels is None:
            return self._with(labels=names)
        order = classes.match(self.labels, names)
        classes.check_names(self.labels, names, order, whose, _ADVICE)
        new = torch.tensor(order, dtype=torch.int64)
        new = new if self._order is None else new[self._order]
        moved = bool((new != torch.arange(len(new))).any())
        noted = (*self.notes, _BY_NAME) if moved and whose == _MODEL else self.notes
        selections = (*self._selections, f"classes={order}") if moved else self._selections
        return self._with(labels=names, _order=new, notes=noted, _selections=selections)

    def select(self, order: Tensor, description: str) -> Dataset:
        """Return the images at `order`, int64 `[n]`; `description` stands for the choice in the fingerprint."""
        return self._with(_index=self._index[order], _selections=(*self._selections, description))

    def _with(self, **changes: Any) -> Dataset:
        new = copy.copy(self)
        vars(new).update(changes)
        return new

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


def check_sizes(images: Sequence[Tensor], ids: Sequence[str]) -> None:
    """Raise DataError if images `[C, H, W]` differ in size."""
    for image, name in zip(images, ids, strict=True):
        if image.shape != images[0].shape:
            sizes = (tuple(i.shape[:0:-1]) for i in (images[0], image))
            first, other = (f"{width}x{height}" for width, height in sizes)
            raise DataError(
                f"images {ids[0]!r} ({first}) and {name!r} ({other}) differ in size; add ?size=224 to the URI"
            )


def stack(images: Sequence[Tensor], ids: Sequence[str]) -> Tensor:
    """Return images `[C, H, W]` as one batch `[B, C, H, W]`.

    Raises:
        DataError: their sizes differ.
    """
    check_sizes(images, ids)
    return torch.stack(list(images))


def unreadable(failures: Sequence[str], of: int) -> str:
    """Return one line that says how many of `of` images cannot be read, and why."""
    count = f"{len(failures)} of {of} images cannot be read: " if len(failures) > 1 else ""
    return f"{count}{_listed(failures, most=20)}"


def _listed(failures: Sequence[str], most: int) -> str:
    """Return the first `most` failures in one line, and how many more there are."""
    more = f"; and {len(failures) - most} more" if len(failures) > most else ""
    return f"{'; '.join(failures[:most])}{more}"
