"""Read data sets that are Python objects: sequences or streams of pairs `(image, label)`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from underfire import own_code
from underfire.data.images import AS_IT_IS, MAX_BYTES, Reading, from_pillow, gather
from underfire.errors import DataError, UnderfireError
from underfire.records import Batch


class Pairs:
    """A sequence of pairs `(image, label)`, or of images without labels.

    An image is a Pillow image, a tensor `[C, H, W]` or an array `[H, W]` or `[H, W, C]`; bytes, or numbers in `[0, 1]`.

    Args:
        items: the sequence.
        labels: names of the classes, or None.
        kind: the beginning of the name of every image, before its number.
        reading: how Pillow images become tensors.

    Raises:
        DataError: the first item is no pair and no image.
    """

    def __init__(self, items: Any, labels: Sequence[str] | None, kind: str, reading: Reading = AS_IT_IS) -> None:
        self._items, self._kind, self._reading = items, kind, reading
        self.labels = tuple(map(str, labels)) if labels else None
        self._length = len(items)
        self.labelled = self._length == 0 or isinstance(_item(items, 0, kind), (tuple, list))

    def __len__(self) -> int:
        return self._length

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, C, H, W]`."""
        ids = tuple(f"{self._kind}-{i:06d}" for i in index)
        labels = torch.full((len(index),), -1)

        def image(i: int) -> Tensor:
            found = _item(self._items, index[i], ids[i])
            if self.labelled:
                if not isinstance(found, (tuple, list)) or len(found) < 2:
                    raise DataError(f"{ids[i]!r} must be a pair (image, label), got {type(found).__name__}")
                found, label = found[:2]
                labels[i] = _number(label, self.labels, ids[i])
            return _tensor(found, ids[i], self._reading)

        return Batch(gather(ids, image, self._reading), labels, ids)


def _item(items: Any, i: int, name: str) -> Any:
    """Return an item of a sequence that a user wrote, which may raise anything."""
    try:
        return items[i]
    except UnderfireError:
        raise
    except Exception as error:
        raise DataError(f"{name!r} cannot be read: {type(error).__name__}: {error}".splitlines()[0]) from error


def _number(label: Any, labels: Sequence[str] | None, name: str) -> int:
    """Return a label, which may be a number, an array of one number, or the name of a class, as a class number."""
    number = label.tolist() if hasattr(label, "tolist") else label
    if isinstance(number, list) and len(number) == 1:
        number = number[0]
    if isinstance(number, str) and number in (labels or ()):
        return list(labels or ()).index(number)
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) >= 2**63:
        raise DataError(f"the label of {name!r} must be a class number, or a name in `classes`; got {label!r:.60}")
    return number


def _tensor(image: Any, name: str, reading: Reading) -> Tensor:
    """Return a Pillow image, a tensor or an array as a float tensor `[C, H, W]`; `name` is for error messages."""
    if isinstance(image, Image.Image):
        return from_pillow(image, name=name, reading=reading)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = torch.from_numpy(image if image.ndim == 2 else image.transpose(2, 0, 1).copy())
    if isinstance(image, Tensor) and image.dim() == 2:
        image = image[None]
    if not isinstance(image, Tensor) or image.dim() != 3 or image.dtype in (torch.bool, torch.complex64):
        what = f"shape {tuple(image.shape)}" if isinstance(image, (Tensor, np.ndarray)) else type(image).__name__
        raise DataError(f"image {name!r} is a {what}, not a Pillow image, a tensor [C, H, W] or an array of bytes")
    reading.check(image.shape[2], image.shape[1], repr(name))
    if reading.mode == "L" and image.shape[0] == 3:
        image = image.float().mean(0, keepdim=True).to(image.dtype)
    return image.detach().float() / 255 if image.dtype == torch.uint8 else image.detach().float()


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
    names = getattr(made, "classes", None)
    if not (hasattr(made, "__getitem__") and hasattr(made, "__len__")):
        if not isinstance(made, Iterable):
            raise DataError(f"python:{path} must be a data set of pairs (image, label), it is a {type(made).__name__}")
        with own_code.running(uri, DataError):
            made = _listed(made, path, max_bytes)
    labels = names if isinstance(names, (list, tuple)) else None
    with own_code.running(uri, DataError):
        return Pairs(made, labels, path.rpartition(":")[2], reading)


def _listed(items: Iterable[Any], path: str, max_bytes: int) -> list[Any]:
    """Return the items of an iterable, or raise DataError when its images exceed `max_bytes`."""
    found: list[Any] = []
    size = 0
    for item in items:
        image = item[0] if isinstance(item, (tuple, list)) and item else item
        size += getattr(image, "nbytes", 0) or 4 * getattr(image, "width", 0) * getattr(image, "height", 0) or 1
        if size > max_bytes:
            raise DataError(f"python:{path} yields more than {max_bytes} bytes; max_bytes=N in the URI allows N")
        found.append(item)
    return found
