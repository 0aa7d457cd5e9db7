"""Make a data set of Python objects: tensors and arrays, a `Batch`, a data set or a loader of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from underfire.data.dataset import Dataset, draw, stack
from underfire.data.images import AS_IT_IS, Reading
from underfire.data.items import class_names, parts, read_item, read_label, read_numbers
from underfire.data.uris import load
from underfire.errors import DataError
from underfire.records import Batch


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
    name, names = f"object:{type(data).__name__}", class_names(data)
    if isinstance(data, Batch):
        batch = data
    elif _is_pair(data):
        batch = _batch(data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        chosen = range(len(data)) if n is None else draw(name, len(data), n, seed).tolist()
        return Dataset(name, InMemory(_collected((data[i] for i in chosen), names), names))
    elif isinstance(data, Iterable):
        found = _collected(data if n is None else _first(data, n, names), names)
        if n is not None and len(found) < n:
            raise DataError(f"{type(data).__name__} yields {len(found)} images, fewer than n={n}")
        return Dataset(name, InMemory(found if n is None else found.take(torch.arange(n)), names))
    else:
        raise DataError(
            f"data must be a Dataset, a DataLoader, a Batch, a pair (x, y) or a URI, got {type(data).__name__}"
        )
    dataset = Dataset(name, InMemory(batch.to("cpu")))
    return dataset if n is None else dataset.subset(n, seed)


def _is_pair(data: Any) -> bool:
    """Return whether `data` is a pair of many images and their labels, and not a list of two items."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    return isinstance(data, tuple) or (hasattr(data[0], "shape") and hasattr(data[1], "shape") and data[1].ndim == 1)


def _first(data: Iterable[Any], n: int, names: Sequence[str] | None) -> Iterator[Any]:
    """Yield items until they hold `n` images."""
    count = 0
    for item in data:
        yield item
        count += len(_batch(item, names))
        if count >= n:
            return


def _collected(items: Iterable[Any], names: Sequence[str] | None) -> Batch:
    """Return all images of items, each of which is an image or a batch, as one batch."""
    found = [_batch(item, names) for item in items]
    if not found:
        raise DataError("the data holds no image")
    ids = _ids(sum(map(len, found)))
    images = [image for part in found for image in part.x]
    return Batch(stack(images, ids), torch.cat([part.y for part in found]), ids)


def _ids(count: int) -> tuple[str, ...]:
    return tuple(f"{i:0{len(str(count))}d}" for i in range(count))


def _batch(item: Any, names: Sequence[str] | None = None) -> Batch:
    """Return an item, `(x, y)` of one image or of several, as a batch.

    Raises:
        DataError: it is not an image with its label.
    """
    if isinstance(item, Batch):
        return item.to("cpu")
    image, label = parts(item)
    if label is None:
        raise DataError(f"an item must be a pair of an image and its label, got {type(item).__name__}")
    if not _is_many(label):
        return Batch(_image(image)[None], torch.tensor([read_label(label, names, "an image")]), _ids(1))
    numbers = label.tolist() if hasattr(label, "tolist") else label
    y = torch.tensor([read_label(number, names, "an image") for number in numbers], dtype=torch.int64)
    if isinstance(image, (list, tuple)):
        x = stack([_image(part) for part in image], _ids(len(image)))
    else:
        x = read_numbers(image, 4, "several images")
    if len(x) != len(y):
        raise DataError(f"there are {len(x)} images and {len(y)} labels")
    return Batch(x, y, _ids(len(y)))


def _image(value: Any) -> Tensor:
    """Return one image as a tensor `[C, H, W]`; a Pillow image in grey has one channel."""
    grey = isinstance(value, Image.Image) and value.mode in ("1", "L")
    return read_item(value, "an image", Reading(mode="L") if grey else AS_IT_IS)


def _is_many(label: Any) -> bool:
    """Return whether labels are those of several images: a list, or a tensor or an array of one dimension."""
    return isinstance(label, (list, tuple)) or getattr(label, "ndim", 0) > 0
