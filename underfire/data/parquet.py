"""Read Parquet tables of encoded images, as the Hugging Face hub stores image data."""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from underfire.data.columns import IMAGE_COLUMNS, column, label_column, numbered
from underfire.data.images import AS_IT_IS, MAX_BYTES, Reading, decode, gather
from underfire.errors import DataError
from underfire.records import Batch

if TYPE_CHECKING:
    import pyarrow as pa

_GROUPS = 4  # how many row groups of a Parquet file stay in memory, because a random subset moves between them
_ROW_BYTES = 16  # what a row takes in memory at least: its label, and its place in the images


class ParquetImages:
    """A Parquet file with encoded images (a struct with `bytes`, or bytes) and labels (integers or names).

    Class names come from the file's Hugging Face metadata if it has them. A few row groups stay in memory.

    Args:
        path: the file.
        reading: how images become tensors.
        image: the column of the images; None looks for `image`, `img` and the like.
        label: the column of the labels; None looks for `label`, `labels` and the like.
        max_bytes: the largest size in memory of a row group, and of the labels.

    Raises:
        DataError: the file is not a Parquet file, is too large, or has no such columns or a column twice.
    """

    def __init__(
        self,
        path: Path,
        reading: Reading = AS_IT_IS,
        image: str | None = None,
        label: str | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"there is no file {str(path)!r}, given as parquet:FILE")
        self._path, self._reading = path, reading
        try:
            schema = pq.read_schema(path)
            self._column = column(schema.names, image, IMAGE_COLUMNS, "image", repr(str(path)))
            self._label = label_column(schema.names, label, self._column, repr(str(path)))
            self._check_types(schema)
            # Equal values stay one value: a small file may repeat a large one in every row.
            repeated = self._column if _is_bytes(schema.field(self._column).type) else f"{self._column}.bytes"
            named = self._label is not None and _is_text(schema.field(self._label).type)
            self._file = pq.ParquetFile(path, read_dictionary=[repeated, *([self._label] if named else [])])
            self._check_size(max_bytes)
            self.labels = _class_names(schema.metadata or {}, self._label)
            self._labels = self._read_labels(named)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(f"{str(path)!r} is not a Parquet file: {error}".splitlines()[0]) from error
        self.labelled = self._label is not None
        groups = range(self._file.num_row_groups)
        self._ends = list(accumulate(self._file.metadata.row_group(g).num_rows for g in groups))
        self._group = lru_cache(maxsize=_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _check_types(self, schema: pa.Schema) -> None:
        """Raise DataError unless the columns hold encoded images and labels."""
        import pyarrow as pa

        kind = schema.field(self._column).type
        if not _is_bytes(kind) and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            raise DataError(f"{str(self._path)!r}: {self._column} must hold the bytes of image files, it has {kind}")
        if self._label is None:
            return
        kind = schema.field(self._label).type
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or _is_text(kind)):
            raise DataError(f"{str(self._path)!r} must have integers or names as labels, it has {kind}")

    def _check_size(self, max_bytes: int) -> None:
        """Raise DataError if a row group, or all labels, would take more than `max_bytes` in memory."""
        facts = self._file.metadata
        sizes = [
            sum(
                facts.row_group(g).column(c).total_uncompressed_size
                for c in range(facts.num_columns)
                if facts.row_group(g).column(c).path_in_schema.split(".")[0] in (self._column, self._label)
            )
            for g in range(facts.num_row_groups)
        ]
        largest = max([_ROW_BYTES * facts.num_rows, *sizes])
        if largest > max_bytes:
            raise DataError(
                f"{str(self._path)!r} unpacks to {largest} bytes at once; {max_bytes} are allowed, "
                f"max_bytes={largest} allows it"
            )

    def _read_labels(self, named: bool) -> Tensor | None:
        """Return the class number of every row, int64 `[rows]`; None if there are no labels.

        Labels that are names (`named`) set `labels`; numbers stay as they are, also whole ones of a floating type.
        """
        if self._label is None:
            return None
        values, source = self._file.read(columns=[self._label])[self._label].to_pylist(), repr(str(self._path))
        if None in values:
            raise DataError(f"{source} has no label in row {values.index(None)}")
        if named:
            values, self.labels = numbered(values, [(name, name) for name in self.labels or ()], source)
        for row, value in enumerate(values):
            if value != value or not -(2**63) <= value < 2**63 or value != int(value):
                raise DataError(f"{source} must have integers or names as labels, it has {value} in row {row}")
        return torch.tensor(list(map(int, values)), dtype=torch.int64)

    def _read_group(self, group: int) -> pa.Table:
        """Return the images of a row group."""
        import pyarrow as pa

        try:
            return self._file.read_row_group(group, columns=[self._column])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{str(self._path)!r} is damaged: {error}".splitlines()[0]) from error

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, C, H, W]`."""
        ids = tuple(f"row-{row:06d}" for row in index)
        order = sorted(range(len(index)), key=index.__getitem__)  # in the order of the file: every group is read once
        labels = torch.full((len(index),), -1) if self._labels is None else self._labels[index]

        def image(i: int) -> Tensor:
            return self._decode(self._cell(index[order[i]]), index[order[i]])

        x = gather([ids[i] for i in order], image, self._reading)
        return Batch(x[torch.tensor(order, dtype=torch.int64).argsort()], labels, ids)

    def _cell(self, row: int) -> Any:
        """Return the cell of the image of a row."""
        group = bisect_right(self._ends, row)
        return self._group(group)[self._column][row - (self._ends[group - 1] if group else 0)]

    def _decode(self, cell: Any, row: int) -> Tensor:
        """Return the image of a cell, `[C, H, W]`."""
        cell = cell.as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise DataError(f"{str(self._path)!r} has no image bytes in row {row}")
        return decode(content, name=f"{self._path}, row {row}", reading=self._reading)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or str(kind) == "binary_view"


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"


def _class_names(metadata: dict[bytes, bytes], label: str | None) -> tuple[str, ...] | None:
    """Return the class names in the Hugging Face metadata of a schema, or None."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"])) or None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
