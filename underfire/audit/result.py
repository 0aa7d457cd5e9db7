"""What a cell reads and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from underfire.audit.arrays import pack, unpack
from underfire.audit.graph import Cell
from underfire.audit.store import Store
from underfire.audit.target import Target
from underfire.errors import LedgerError
from underfire.records import Batch

TABLE, ARRAYS = "table.parquet", "arrays.bin"
_TYPES = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "l": pa.list_(pa.string())}


def columns(text: str) -> pa.Schema:
    """Return a schema from words such as `y:i`, an integer column `y`.

    The types are `s` text, `i` integer, `f` number, `b` true or false, `l` list of texts.
    """
    return pa.schema([(name, _TYPES[kind]) for name, kind in (word.split(":") for word in text.split())])


def arrays_key(key: str) -> str:
    """Return the key under which the store has the arrays of a cell that may be dropped."""
    return f"{key}-arrays"


@dataclass
class Result:
    """What a cell leaves in the store.

    Attributes:
        table: its columns by name.
        arrays: tensors for the cells that need this one.
    """

    table: dict[str, list[Any]] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def add(self, count: int, **values: Any) -> None:
        """Add `count` rows: a tensor or a list has one value for each, anything else is the same for all."""
        for name, value in values.items():
            many = value.tolist() if isinstance(value, Tensor) else value
            self.table.setdefault(name, []).extend(many if isinstance(many, list) else [many] * count)

    def write(self, store: Store, cell: Cell, schema: pa.Schema | None) -> None:
        """Write the result; the arrays of a cell that may be dropped lie apart, and come first.

        Raises:
            LedgerError: the store cannot be written.
        """
        files = {}
        if schema is not None:
            buffer = pa.BufferOutputStream()
            table = {name: self.table.get(name, []) for name in schema.names}
            pq.write_table(pa.table(table, schema=schema), buffer)
            files[TABLE] = buffer.getvalue().to_pybytes()
        if self.arrays and cell.kept_bytes:
            store.put(arrays_key(cell.key), {ARRAYS: pack(self.arrays)})
        elif self.arrays:
            files[ARRAYS] = pack(self.arrays)
        store.put(cell.key, files)


class Inputs:
    """What the cells of one audit read: its target, and the results of other cells.

    Args:
        target: the model, the data and the interpreters.
        store: where the results are.
    """

    def __init__(self, target: Target, store: Store) -> None:
        self.target, self.store = target, store
        # A craft is read by several cells in a row, as are the images of a shard.
        self._read = lru_cache(maxsize=16)(self._unpacked)
        self._shard = lru_cache(maxsize=2)(self._images)

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.target.spec.device

    def batch(self, cell: Cell) -> Batch:
        """Return the images of the cell's shard, on the device."""
        clean = cell.needs.get("clean", cell)
        index, of = clean.options["shard"]
        return self._shard(index, of)

    def arrays(self, cell: Cell) -> Mapping[str, Tensor]:
        """Return the arrays that a cell left, on the device.

        Raises:
            LedgerError: they are not there, or damaged.
        """
        return self._read(arrays_key(cell.key) if cell.kept_bytes else cell.key)

    def _images(self, index: int, of: int) -> Batch:
        return self.target.data.shard(index, of)[:].to(self.device)

    def _unpacked(self, key: str) -> dict[str, Tensor]:
        content = self.store.get(key, ARRAYS)
        if content is None:
            raise LedgerError(f"{self.store.url}/cells/{key} is missing; run the audit again")
        return {name: value.to(self.device) for name, value in unpack(content).items()}
