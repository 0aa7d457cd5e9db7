"""Make a data set of Python objects: tensors and arrays, a `Batch`, a data set or a loader of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from underfire.data.dataset import Dataset, draw, stack
from underfire.data.images import from_pillow
from underfire.data.uris import load
from underfire.errors import DataError
from underfire.records import Batch

_INPUTS, _LABELS = ("x", "image", "img", "input", "pixel_values"), ("y", "label", "labels", "fine_label", "target")


class InMemory:
    """A source of images that are in memory.

    Args:
        batch: the images with their labels.
        labels: names of the classes, if they are known.
    """

    def __init__(self, batch: Batch, labels: tuple[str, ...] | None = None) -> None:
        self._batch, self.labels = batch, labels

    def __len__(self) -> int:
        return len(self._batch)

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`."""
        return self._batch.take(torch.tensor(index, dtype=torch.int64))


def from_objects(data: Any, *, n: int | None = None, seed: int = 0) -> Dataset:
    """Return a data set of Python objects, in memory on the CPU.

    Images are `[C, H, W]`, with values in `[0, 1]` or of type uint8, or Pillow images. They are read once, so that a
    random transform of a data set of torch is applied once to each image.

    Args:
        data: a `Dataset`, a URI, a `Batch`, a pair `(x, y)` of tensors, arrays or lists, or anything that yields pairs
            of an image and its label, or batches of them: a data set or a DataLoader of torch, a list.
        n: number of images; of a data set with a length, they are drawn at random by `seed`, and of any other the first
            `n` are taken. None takes all.
        seed: the seed of the draw.

    Raises:
        DataError: an item is not an image with its label, or there are fewer images than `n`.
    """
    if isinstance(data, str):
        return load(data, n=n, seed=seed)
    if isinstance(data, Dataset):
        return data if n is None else data.subset(n, seed)
    name, labels = f"object:{type(data).__name__}", getattr(data, "classes", None)
    if isinstance(data, Batch):
        batch = data
    elif _is_pair(data):
        batch = _batch(data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        chosen = range(len(data)) if n is None else draw(name, len(data), n, seed).tolist()
        return Dataset(name, InMemory(_collected(data[i] for i in chosen), _names(labels)))
    elif isinstance(data, Iterable):
        found = _collected(data if n is None else _first(data, n))
        if n is not None and len(found) < n:
            raise DataError(f"{type(data).__name__} yields {len(found)} images, fewer than n={n}")
        return Dataset(name, InMemory(found if n is None else found.take(torch.arange(n)), _names(labels)))
    else:
        raise DataError(
            f"data must be a Dataset, a DataLoader, a Batch, a pair (x, y) or a URI, got {type(data).__name__}"
        )
    dataset = Dataset(name, InMemory(batch.to("cpu")))
    return dataset if n is None else dataset.subset(n, seed)


def _names(labels: Any) -> tuple[str, ...] | None:
    """Return the names of classes that a data set of torchvision states, or None."""
    known = isinstance(labels, Sequence) and not isinstance(labels, str) and all(isinstance(k, str) for k in labels)
    return tuple(labels) if known and labels else None


def _is_pair(data: Any) -> bool:
    """Return whether `data` is a pair of many images and their labels, and not a list of two items."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    return isinstance(data, tuple) or (hasattr(data[0], "shape") and hasattr(data[1], "shape") and data[1].ndim == 1)


def _first(data: Iterable[Any], n: int) -> Iterator[Any]:
    """Yield items until they hold `n` images."""
    count = 0
    for item in data:
        yield item
        count += len(_batch(item))
        if count >= n:
            return


def _collected(items: Iterable[Any]) -> Batch:
    """Return all images of items, each of which is an image or a batch, as one batch."""
    parts = [_batch(item) for item in items]
    if not parts:
        raise DataError("the data holds no image")
    ids = _ids(sum(map(len, parts)))
    images = [image for part in parts for image in part.x]
    return Batch(stack(images, ids), torch.cat([part.y for part in parts]), ids)


def _ids(count: int) -> tuple[str, ...]:
    return tuple(f"{i:0{len(str(count))}d}" for i in range(count))


def _batch(item: Any) -> Batch:
    """Return an item, `(x, y)` of one image or of several, as a batch.

    Raises:
        DataError: it is not an image with its label.
    """
    if isinstance(item, Batch):
        return item.to("cpu")
    if isinstance(item, Mapping):
        found = [next((item[key] for key in keys if key in item), None) for keys in (_INPUTS, _LABELS)]
        if any(part is None for part in found):
            raise DataError(f"an item needs an image ({', '.join(_INPUTS)}) and a label, it has {', '.join(item)}")
        item = found
    if not isinstance(item, Sequence) or len(item) < 2:
        raise DataError(f"an item must be a pair of an image and its label, got {type(item).__name__}")
    y = _labels(item[1])
    x = _images(item[0], several=y.dim() == 1)
    if y.dim() == 0:
        x, y = x[None], y[None]
    if len(x) != len(y):
        raise DataError(f"there are {len(x)} images and {len(y)} labels")
    return Batch(x, y, _ids(len(x)))


def _labels(value: Any) -> Tensor:
    """Return labels as int64, one `[]` or several `[B]`.

    Raises:
        DataError: they are not whole numbers.
    """
    try:
        y = torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"labels must be whole numbers, got {value!r:.80}") from None
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.dim() > 1:
        raise DataError(f"labels must be whole numbers, one per image, got {y.dtype} {tuple(y.shape)}")
    return y.long()


def _images(value: Any, *, several: bool) -> Tensor:
    """Return images as float32 or float64, uint8 divided by 255; arrays and Pillow images get their channels first.

    Raises:
        DataError: they are not arrays of numbers.
    """
    if several and isinstance(value, (list, tuple)):
        images = [_images(part, several=False) for part in value]
        return stack(images, _ids(len(images)))
    if isinstance(value, Image.Image):
        image = from_pillow(value, name="an image")
        return image.mean(0, keepdim=True) if value.mode in ("L", "1") else image
    try:
        x = torch.as_tensor(value).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"an image must be a tensor, an array or a Pillow image, got {type(value).__name__}") from None
    if isinstance(value, np.ndarray) and x.dtype == torch.uint8 and x.dim() == 3 + several and x.shape[-1] in (1, 3):
        x = x.movedim(-1, -3)  # as Pillow and OpenCV store images
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()
