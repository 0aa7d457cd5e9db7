"""Read data sets from files: MNIST's IDX files, Parquet tables of encoded images, folders of class folders."""

from __future__ import annotations

import gzip
import json
import zlib
from bisect import bisect_right
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from underfire.data.dataset import stack
from underfire.data.images import SUFFIXES, decode, read_image
from underfire.errors import DataError
from underfire.records import Batch

if TYPE_CHECKING:
    import pyarrow as pa


_GROUPS = 4  # how many row groups of a Parquet file stay in memory, because a random subset moves between them


class Mnist:
    """A folder with MNIST's IDX files (`t10k-images-idx3-ubyte.gz`, ...), compressed or not: `[B, 1, 28, 28]`."""

    labels: tuple[str, ...] | None = tuple("0123456789")

    def __init__(self, folder: Path, split: str) -> None:
        stem = "train" if split == "train" else "t10k"
        self._split = split
        self._images, self._digits = (
            _find_file(folder, f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
        )
        self._length = int.from_bytes(_read_bytes(self._images, 8)[4:], "big")

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor]:
        images, digits = read_idx(self._images), read_idx(self._digits)
        if len(images) != len(digits):
            raise DataError(f"{str(self._images)!r} has {len(images)} images but there are {len(digits)} labels")
        return images[:, None], digits.long()

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`."""
        images, digits = self._arrays
        return Batch(images[index].float() / 255, digits[index], tuple(f"{self._split}-{i:05d}" for i in index))


def read_idx(path: Path) -> Tensor:
    """Return the values of an IDX file (LeCun's MNIST format), uint8, in the shape that its header states."""
    content = _read_bytes(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{str(path)!r} is not an IDX file of bytes")
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3])]
    body = content[4 + 4 * len(shape) :]
    if len(body) != torch.Size(shape).numel():
        raise DataError(f"{str(path)!r} states the shape {shape} but holds {len(body)} bytes")
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).reshape(shape)


def _read_bytes(path: Path, length: int = -1) -> bytes:
    """Return the first `length` bytes of a file that may be compressed, or all of them."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(length)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be unpacked: {error}") from error


def _find_file(folder: Path, stem: str) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise DataError(f"there is no {stem}.gz in {str(folder)!r}, the folder given as mnist:FOLDER")


class ParquetImages:
    """A Parquet file with encoded images and labels, as the Hugging Face hub stores image data.

    The columns are `img` or `image` (a struct with `bytes`, or bytes) and `label` (integers). Class names come from
    the file's Hugging Face metadata if it has them. A few row groups stay in memory.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"there is no file {str(path)!r}, given as parquet:FILE")
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{str(path)!r} is not a Parquet file: {error}".splitlines()[0]) from error
        schema, self._path = self._file.schema_arrow, path
        columns = [name for name in ("img", "image") if name in schema.names]
        if not columns or "label" not in schema.names:
            raise DataError(
                f"{str(path)!r} must have the columns img (or image) and label, it has {', '.join(schema.names)}"
            )
        if not pa.types.is_integer(schema.field("label").type):
            raise DataError(f"{str(path)!r} must have integers as labels, it has {schema.field('label').type}")
        self._column = columns[0]
        groups = range(self._file.num_row_groups)
        self._ends = list(accumulate(self._file.metadata.row_group(g).num_rows for g in groups))
        self._group = lru_cache(maxsize=_GROUPS)(self._read_group)
        self.labels = _class_names(schema.metadata or {})

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _read_group(self, group: int) -> tuple[pa.Table, Tensor]:
        import pyarrow as pa

        try:
            table = self._file.read_row_group(group, columns=[self._column, "label"])
            return table, torch.tensor(table["label"].to_pylist(), dtype=torch.int64)
        except (pa.ArrowException, OSError, TypeError, ValueError) as error:
            raise DataError(f"{str(self._path)!r} is damaged: {error}".splitlines()[0]) from error

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, RGB `[B, 3, H, W]`."""
        images: dict[int, Tensor] = {}
        labels: dict[int, int] = {}
        for row in sorted(index):
            group = bisect_right(self._ends, row)
            table, values = self._group(group)
            place = row - (self._ends[group - 1] if group else 0)
            cell = table[self._column][place].as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(content, bytes):
                raise DataError(f"{str(self._path)!r} has no image bytes in row {row}")
            images[row] = decode(content, name=f"{self._path}, row {row}")
            labels[row] = int(values[place])
        ids = tuple(f"row-{row:06d}" for row in index)
        x = stack([images[row] for row in index], ids)
        return Batch(x, torch.tensor([labels[row] for row in index], dtype=torch.int64), ids)


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """Return the class names in the Hugging Face metadata of a schema, or None."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features["label"]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


class Folder:
    """A folder with one folder of images for each class; the classes are the folders, sorted by name.

    If there is a `classes.json` beside them (a list of `{"synset": folder, "name": class}`), the classes are those of
    that file in its order, even classes without a folder: a sample of ImageNet then keeps the numbers of 1,000 classes.
    """

    def __init__(self, folder: Path, size: int | None) -> None:
        if not folder.is_dir():
            raise DataError(f"there is no folder {str(folder)!r}, given as folder:FOLDER")
        folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        listed = _read_classes(folder / "classes.json")
        synsets = [synset for synset, _ in listed] if listed else folders
        self.labels: tuple[str, ...] | None = tuple(name for _, name in listed) if listed else tuple(folders)
        rank = {synset: place for place, synset in enumerate(synsets)}
        self._root, self._size = folder, size
        self._images: list[tuple[str, int]] = []
        for name in folders:
            files = sorted(file.name for file in (folder / name).iterdir() if file.suffix.lower() in SUFFIXES)
            if files and name not in rank:
                raise DataError(f"folder {name!r} in {str(folder)!r} is not among the classes of its classes.json")
            self._images += [(f"{name}/{file}", rank[name]) for file in files]
        if not self._images:
            raise DataError(f"{str(folder)!r} must hold class folders with images in them ({', '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, RGB `[B, 3, H, W]`."""
        chosen = [self._images[i] for i in index]
        ids = tuple(name for name, _ in chosen)
        x = stack([read_image(self._root / name, size=self._size) for name in ids], ids)
        return Batch(x, torch.tensor([label for _, label in chosen], dtype=torch.int64), ids)


def _read_classes(path: Path) -> list[tuple[str, str]]:
    """Return the folder and the name of every class in a `classes.json`; empty if there is no such file."""
    if not path.is_file():
        return []
    try:
        return [(entry["synset"], entry["name"]) for entry in json.loads(path.read_text("utf-8"))]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f'{str(path)!r} must be a list of {{"synset": FOLDER, "name": CLASS}}') from error
