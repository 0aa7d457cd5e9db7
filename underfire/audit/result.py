"""The inputs and the result of a cell."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from underfire.audit.arrays import pack, unpack
from underfire.audit.graph import Cell
from underfire.audit.store import Damaged, Store
from underfire.audit.target import Target
from underfire.errors import DataError, Unsupported
from underfire.model import Classifier
from underfire.records import Batch

TABLE, ARRAYS, REFUSED = "table.parquet", "arrays.bin", "refused.txt"
_TYPES = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "l": pa.list_(pa.string())}


def columns(text: str) -> pa.Schema:
    """Return the schema of a table from words such as `y:i`, which is a column `y` of integers.

    The types are `s` text, `i` integer, `f` float, `b` Boolean, and `l` list of texts.
    """
    return pa.schema([(name, _TYPES[kind]) for name, kind in (word.split(":") for word in text.split())])


def arrays_key(key: str) -> str:
    """Return the key under which the store has those arrays of a cell that may be deleted (`Cell.kept_bytes`)."""
    return f"{key}-arrays"


@dataclass
class Result:
    """The result of a cell: a table for the ledger, and arrays for other cells.

    Attributes:
        table: the columns of the table by name.
        arrays: tensors for the cells that need this one, by name.
        refused: why the method cannot be run on the model, in one line; such a result has no rows and no arrays.
    """

    table: dict[str, list[Any]] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)
    refused: str = ""

    def add(self, count: int, **values: Any) -> None:
        """Add `count` rows; a tensor or a list has one value per row, and any other value is repeated in every row."""
        for name, value in values.items():
            many = value.tolist() if isinstance(value, Tensor) else value
            self.table.setdefault(name, []).extend(many if isinstance(many, list) else [many] * count)

    def write(self, store: Store, cell: Cell, schema: pa.Schema | None) -> None:
        """Write the result to the store; arrays that may be deleted are written first, under a key of their own.

        Raises:
            LedgerError: the store cannot be written.
        """
        files = {REFUSED: self.refused.encode()} if self.refused else {}
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
    """The inputs of cells: the target of the audit, and the results of other cells.

    Args:
        target: the model, the data and the interpreters.
        store: the store with the results.
        compute: `(cell, inputs) -> result`, for arrays that are damaged or that another run of the same folder deletes.
    """

    def __init__(self, target: Target, store: Store, compute: Callable[[Cell, Inputs], Result]) -> None:
        self.target, self.store, self._compute = target, store, compute
        # Several successive cells read the same craft cell and the same images.
        self._read = lru_cache(maxsize=16)(self._unpacked)
        self._shard = lru_cache(maxsize=2)(self._images)

    def on(self, model: Classifier) -> Inputs:
        """Return the inputs with another model."""
        other = copy.copy(self)
        other.target = self.target.on(model)
        return other

    @property
    def device(self) -> str:
        """The device of the model."""
        return self.target.spec.device

    def batch(self, cell: Cell) -> Batch:
        """Return the images of the cell's shard, on the device."""
        clean = cell.needs.get("clean", cell)
        index, of = clean.options["shard"]
        return self._shard(index, of)

    def arrays(self, cell: Cell) -> Mapping[str, Tensor]:
        """Return the arrays of a cell's result, on the device.

        Raises:
            Unsupported: the cell could not be run on this model.
            Damaged: the arrays are damaged or missing, and not of the kind that a budget deletes; those are made again.
        """
        key = arrays_key(cell.key) if cell.kept_bytes else cell.key
        try:
            return self._read(key)
        except Damaged:
            if (refused := self.store.get(cell.key, REFUSED)) is not None:
                raise Unsupported(refused.decode()) from None
            if not cell.kept_bytes:
                raise
            self.store.delete(key)
            return self._compute(cell, self).arrays

    def _images(self, index: int, of: int) -> Batch:
        return self.target.data.shard(index, of)[:].to(self.device)

    def _unpacked(self, key: str) -> dict[str, Tensor]:
        content = self.store.get(key, ARRAYS)
        if content is None:
            raise Damaged(f"{self.store.url}/cells/{key} is missing; run the audit again")
        try:
            return {name: value.to(self.device) for name, value in unpack(content).items()}
        except DataError as error:
            raise Damaged(f"{self.store.url}/cells/{key}/{ARRAYS}: {error}") from None
