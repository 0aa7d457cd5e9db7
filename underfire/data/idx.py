"""Read MNIST's IDX files (Y. LeCun, C. Cortes, C. Burges, 1998), compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import cached_property
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from underfire.data.images import MAX_BYTES
from underfire.errors import DataError
from underfire.records import Batch

_CHUNK = 2**20


class Mnist:
    """A folder with MNIST's IDX files (`t10k-images-idx3-ubyte.gz`, ...), compressed or not: `[B, 1, 28, 28]`."""

    labels: tuple[str, ...] | None = tuple("0123456789")

    def __init__(self, folder: Path, split: str, max_bytes: int = MAX_BYTES) -> None:
        stem = "train" if split == "train" else "t10k"
        self._split, self._max_bytes = split, max_bytes
        self._images, self._digits = (
            _find_file(folder, f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
        )
        images, digits = (idx_shape(path, ndim) for path, ndim in ((self._images, 3), (self._digits, 1)))
        if images[0] != digits[0]:
            raise DataError(f"{str(self._images)!r} has {images[0]} images but there are {digits[0]} labels")
        self._length = images[0]

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor]:
        images, digits = (read_idx(path, n, self._max_bytes) for path, n in ((self._images, 3), (self._digits, 1)))
        return images[:, None], digits.long()

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`."""
        images, digits = self._arrays
        return Batch(images[index].float() / 255, digits[index], tuple(f"{self._split}-{i:05d}" for i in index))


def idx_shape(path: Path, ndim: int) -> list[int]:
    """Return the shape that the header of an IDX file states.

    Raises:
        DataError: it is not an IDX file of bytes, does not have `ndim` dimensions, or states one of length 0.
    """
    header = _read_bytes(path, 4 + 4 * ndim)
    if header[:3] != b"\0\0\x08":
        raise DataError(f"{str(path)!r} is not an IDX file of bytes")
    shape = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim)]
    if len(header) < 4 + 4 * ndim or header[3] != ndim or 0 in shape:
        raise DataError(f"{str(path)!r} must state {ndim} dimensions of at least 1; it states {header[3]}: {shape}")
    return shape


def read_idx(path: Path, ndim: int, max_bytes: int = MAX_BYTES) -> Tensor:
    """Return the values of an IDX file, uint8, in the shape that its header states.

    Raises:
        DataError: the header is wrong, states more than `max_bytes` values, or not the number that the file holds.
    """
    shape = idx_shape(path, ndim)
    size = math.prod(shape)
    if size > max_bytes:
        raise DataError(
            f"{str(path)!r} states the shape {shape}, {size} bytes; {max_bytes} are allowed, max_bytes={size} allows it"
        )
    content = _read_bytes(path, 4 + 4 * ndim + size + 1)  # one more, to see that there is more
    body = content[4 + 4 * ndim :]
    if len(body) != size:
        held = f"more than {size}" if len(body) > size else len(body)
        raise DataError(f"{str(path)!r} states the shape {shape} but holds {held} bytes")
    return torch.frombuffer(body, dtype=torch.uint8).reshape(shape)


def _read_bytes(path: Path, length: int) -> bytearray:
    """Return the first `length` bytes of a file that may be compressed, or all if there are fewer."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read_chunks(file, length)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be unpacked: {error}") from error


def _read_chunks(file: gzip.GzipFile | BufferedReader, length: int) -> bytearray:
    """Return at most `length` bytes; memory grows with what the file holds, not with `length`."""
    content = bytearray()
    while len(content) < length and (part := file.read(min(_CHUNK, length - len(content)))):
        content += part
    return content


def _find_file(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise DataError(f"there is no {stem}.gz in {str(folder)!r}, the folder given as mnist:FOLDER")
