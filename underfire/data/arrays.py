"""Read images and labels from a NumPy archive (`.npz`)."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underfire.data.columns import column
from underfire.data.images import MAX_BYTES
from underfire.errors import DataError
from underfire.records import Batch

_IMAGES = ("{split}_images", "x_{split}", "images", "image", "x", "data", "arr_0")
_LABELS = ("{split}_labels", "y_{split}", "labels", "label", "y", "targets", "target", "arr_1")
_NAMES = ("classes", "class_names", "label_names")


class Arrays:
    """An archive with an array of images and one of labels.

    Images are `[n, H, W]`, `[n, H, W, C]` or `[n, C, H, W]` with 1 or 3 channels: bytes, or numbers in `[0, 1]`. Labels
    are whole numbers `[n]`; without an array of labels, they are not known. An array `classes` has the class names.

    Args:
        path: the archive.
        split: `"test"` or `"train"`, for archives with arrays such as `x_test`.
        image: the name of the array of images; None looks for `images`, `x` and the like.
        label: the name of the array of labels; None looks for `labels`, `y` and the like.
        max_bytes: the largest size of an array.

    Raises:
        DataError: the archive cannot be read, an array is missing, too large, or has a wrong shape or type.
    """

    def __init__(
        self, path: Path, split: str, image: str | None = None, label: str | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        if not path.is_file():
            raise DataError(f"there is no file {str(path)!r}, given as npz:FILE")
        self._split, source = split, repr(str(path))
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
                usual = [name.format(split=split) for name in _IMAGES]
                self._x = _as_images(_array(archive, column(names, image, usual, "image", source), max_bytes), source)
                usual = [name.format(split=split) for name in _LABELS]
                self.labelled = label is not None or bool({*usual} & {name.lower() for name in names})
                found = (
                    _array(archive, column(names, label, usual, "label", source), max_bytes) if self.labelled else None
                )
                listed = next((_array(archive, name, max_bytes) for name in _NAMES if name in names), None)
        except DataError:
            raise
        except Exception as error:  # a damaged archive raises errors of many kinds
            raise DataError(f"{source} cannot be read as an archive of NumPy: {error}".splitlines()[0]) from error
        self.labels: tuple[str, ...] | None = None if listed is None else tuple(map(str, listed.ravel().tolist()))
        self._y = torch.full((len(self._x),), -1) if found is None else _as_labels(found, len(self._x), source)

    def __len__(self) -> int:
        return len(self._x)

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, C, H, W]`."""
        chosen = self._x[index]
        x = chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen.float()
        return Batch(x, self._y[index], tuple(f"{self._split}-{i:06d}" for i in index))


def _array(archive: zipfile.ZipFile, name: str, max_bytes: int) -> np.ndarray[Any, Any]:
    """Return an array of the archive; raise DataError if its header states objects, or more than `max_bytes`."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    size = math.prod(shape) * kind.itemsize
    if kind.hasobject:
        raise DataError(f"{archive.filename!r}: the array {name!r} holds Python objects, which are not opened")
    if size > max_bytes or archive.getinfo(f"{name}.npy").file_size > max_bytes + 2**16:
        raise DataError(f"{archive.filename!r}: the array {name!r} has {size} bytes; max_bytes={size} allows it")
    with archive.open(f"{name}.npy") as file:
        found: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _as_images(array: np.ndarray[Any, Any], source: str) -> Tensor:
    """Return an array of images as `[n, C, H, W]`, uint8 or float."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(f"{source}: images must be uint8, or numbers in [0, 1]; they are {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise DataError(f"{source}: images must be [n, H, W], [n, H, W, C] or [n, C, H, W], got {list(array.shape)}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


def _as_labels(array: np.ndarray[Any, Any], count: int, source: str) -> Tensor:
    """Return an array of labels as int64 `[n]`."""
    if array.size != count or array.shape[:1] != (count,):
        raise DataError(f"{source} has {count} images but labels of the shape {list(array.shape)}")
    if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and bool((array == array.round()).all())):
        raise DataError(f"{source}: labels must be whole numbers, they are {array.dtype}")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))
