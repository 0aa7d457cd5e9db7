"""Open data sets of torchvision and of the Hugging Face hub; both packages are extras, imported when they are used."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from underfire.data.dataset import stack
from underfire.data.images import from_pillow
from underfire.errors import DataError, MissingExtra, nearest
from underfire.records import Batch


class Indexed:
    """A sequence of pairs `(image, label)`, where the image is a Pillow image or a tensor."""

    def __init__(self, items: Any, labels: tuple[str, ...] | None, kind: str) -> None:
        self._items, self.labels, self._kind = items, labels, kind

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`."""
        pairs = [self._items[i] for i in index]
        ids = tuple(f"{self._kind}-{i:06d}" for i in index)
        x = stack([_tensor(image, name) for (image, _), name in zip(pairs, ids, strict=True)], ids)
        return Batch(x, torch.tensor([int(label) for _, label in pairs], dtype=torch.int64), ids)


def _tensor(image: Any, name: str) -> Tensor:
    """Return a Pillow image or a tensor as a float tensor `[C, H, W]`; `name` is for error messages."""
    if isinstance(image, Image.Image):
        return from_pillow(image, name=name)
    if isinstance(image, Tensor) and image.dim() == 3:
        return image.float() / 255 if image.dtype == torch.uint8 else image.float()
    raise DataError(f"image {name!r} is a {type(image).__name__}, not a Pillow image or a tensor [C, H, W]")


def torchvision(name: str, root: str, split: str) -> Indexed:
    """Return a data set of `torchvision.datasets` whose files are in `root`; nothing is downloaded."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtra("torchvision") from error
    kinds = [k for k, v in vars(datasets).items() if isinstance(v, type)]
    if name not in kinds:
        raise DataError(f"torchvision has no data set {name!r}; {nearest(name, kinds)}")
    build = getattr(datasets, name)
    try:
        items = build(root, train=split == "train", download=False)
    except TypeError:  # half of the data sets have `split` instead of `train`
        items = build(root, split=split)
    except (RuntimeError, OSError) as error:
        raise DataError(f"torchvision:{name} cannot be read from {root!r}: {error}".splitlines()[0]) from error
    classes = getattr(items, "classes", None)
    return Indexed(items, tuple(map(str, classes)) if classes else None, f"{name}-{split}")


def hugging_face(name: str, split: str) -> Indexed:
    """Return a data set of the Hugging Face hub that has the columns `image` (or `img`) and `label`."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets") from error
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # a client of a hub raises errors of many kinds
        raise DataError(f"hf:{name}?split={split} cannot be loaded: {error}".splitlines()[0]) from error
    columns = [column for column in ("image", "img") if column in table.features]
    if not columns or "label" not in table.features:
        raise DataError(f"hf:{name} must have the columns image (or img) and label, it has {', '.join(table.features)}")
    names = getattr(table.features["label"], "names", None)
    return Indexed(_Rows(table, columns[0]), tuple(names) if names else None, f"{name}-{split}")


class _Rows:
    """The rows of a Hugging Face data set as pairs `(image, label)`."""

    def __init__(self, table: Any, column: str) -> None:
        self._table, self._column = table, column

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        row = self._table[i]
        return row[self._column], row["label"]
