"""Read data sets that are Python objects: sequences or streams of pairs `(image, label)`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from underfire import own_code
from underfire.data.images import AS_IT_IS, MAX_BYTES, Reading, gather
from underfire.data.items import class_names, parts, read_item, read_label
from underfire.errors import DataError, UnderfireError
from underfire.records import Batch


class Pairs:
    """A sequence of pairs `(image, label)`, of mappings with these two, or of images without labels.

    `underfire.data.items` says what an image and a label may be.

    Args:
        items: the sequence.
        labels: names of the classes, or None.
        kind: the beginning of the name of every image, before its number.
        reading: how Pillow images become tensors.

    Raises:
        DataError: the first item is neither a pair nor an image.
    """

    def __init__(self, items: Any, labels: Sequence[str] | None, kind: str, reading: Reading = AS_IT_IS) -> None:
        self._items, self._kind, self._reading = items, kind, reading
        self.labels = tuple(map(str, labels)) if labels else None
        self._length = len(items)
        self.labelled = self._length == 0 or parts(_item(items, 0, kind))[1] is not None

    def __len__(self) -> int:
        return self._length

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, C, H, W]`."""
        ids = tuple(f"{self._kind}-{i:06d}" for i in index)
        labels = torch.full((len(index),), -1)

        def image(i: int) -> Tensor:
            found, label = parts(_item(self._items, index[i], ids[i]))
            if self.labelled:
                if label is None:
                    raise DataError(f"{ids[i]!r} must be a pair (image, label), got {type(found).__name__}")
                labels[i] = read_label(label, self.labels, ids[i])
            return read_item(found, ids[i], self._reading)

        return Batch(gather(ids, image, self._reading), labels, ids)


def _item(items: Any, i: int, name: str) -> Any:
    """Return an item of a sequence that a user wrote, which may raise anything."""
    try:
        return items[i]
    except UnderfireError:
        raise
    except Exception as error:
        raise DataError(f"{name!r} cannot be read: {type(error).__name__}: {error}".splitlines()[0]) from error


def from_python(path: str, reading: Reading, max_bytes: int = MAX_BYTES) -> Pairs:
    """Open the data set that `package.module:name` names: an object, or a function that returns one.

    It is a torch `Dataset`, a `DataLoader` (whose data set is read), or any sequence or iterable of pairs `(image,
    label)`, or of images. An iterable is kept in memory, at most `max_bytes` of it. Class names come from its attribute
    `classes`. The module may be in the current folder, as with `python -m`.

    Raises:
        DataError: there is no such module or name, its code fails, or it is no such data set.
    """
    uri = f"python:{path}"
    made = own_code.find(uri, DataError)
    if isinstance(made, type) or (
        callable(made) and not hasattr(made, "__getitem__") and not hasattr(made, "__iter__")
    ):
        made = own_code.call(uri, made, {}, DataError)
    if isinstance(made, DataLoader):
        made = made.dataset
    names = class_names(made)
    if not (hasattr(made, "__getitem__") and hasattr(made, "__len__")):
        if not isinstance(made, Iterable):
            raise DataError(f"python:{path} must be a data set of pairs (image, label), it is a {type(made).__name__}")
        with own_code.running(uri, DataError):
            made = _listed(made, path, max_bytes)
    with own_code.running(uri, DataError):
        return Pairs(made, names, path.rpartition(":")[2], reading)


def _listed(items: Iterable[Any], path: str, max_bytes: int) -> list[Any]:
    """Return the items of an iterable, or raise DataError when its images exceed `max_bytes`."""
    found: list[Any] = []
    size = 0
    for item in items:
        image, _ = parts(item)
        size += getattr(image, "nbytes", 0) or 4 * getattr(image, "width", 0) * getattr(image, "height", 0) or 1
        if size > max_bytes:
            raise DataError(f"python:{path} yields more than {max_bytes} bytes; max_bytes=N in the URI allows N")
        found.append(item)
    return found
