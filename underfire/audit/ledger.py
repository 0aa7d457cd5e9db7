"""The ledger: the results of a run, read as tables by an in-memory database.

`ledger.json` in the run folder has the schema version, the spec, the environment and the cells of the current plan.
The results of the cells are in the store of the folder (see `underfire.audit.store`).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from underfire.audit.arrays import unpack
from underfire.audit.kinds import KINDS
from underfire.audit.result import ARRAYS, TABLE
from underfire.audit.schema import AuditSpec
from underfire.audit.store import Store
from underfire.errors import InputError, LedgerError

SCHEMA = 2
"""The version of this layout and of what its columns mean."""

HEAD = "ledger.json"
TABLES = ("clean", "rows", "maps", "measures", "checks")
"""The tables of every ledger; one that no cell has added to is empty."""


class Ledger:
    """What a run has found so far.

    Args:
        path: the run folder, on this machine or on any filesystem that fsspec knows (`s3://bucket/run`).

    Raises:
        LedgerError: it is not a run folder, is damaged, or was written by another version of underfire.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._store = Store(path)
        self.about = read_head(self._store, self.path)

    @cached_property
    def spec(self) -> AuditSpec:
        """The spec of the last run."""
        return AuditSpec.model_validate(self.about["spec"])

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, model and data of the last run, as plain values."""
        return dict(self.about.get("environment", {}))

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells of the current plan: key, kind, needs, images, what they are about, and whether each is done."""
        return [{**cell, "done": cell["key"] in self._done} for cell in self.about["cells"]]

    @property
    def planned(self) -> int:
        """How many results the plan asks for."""
        return len({cell["key"] for cell in self.about["cells"]})

    @property
    def missing(self) -> int:
        """How many of them are not there yet."""
        return len({cell["key"] for cell in self.about["cells"]} - self._done)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Answer a query over the tables `clean`, `rows`, `maps`, `measures` and `checks`.

        Raises:
            InputError: the query is not valid.
        """
        import duckdb

        try:
            found = self._database.execute(query)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise InputError(f"the query failed: {error}") from None

    def table(self, name: str) -> pa.Table:
        """Return all rows of one table, over the cells of the current plan."""
        return self._database.table(name).to_arrow_table()

    def gallery(self, craft: str) -> dict[str, Tensor]:
        """Return the images and maps that are kept of an attack, by name; empty if none are.

        The names are `x`, `x_adv`, `map_clean.TITLE` and `map_adv.TITLE` of every interpreter.

        Args:
            craft: the key of the attack's cell, as `rows` has it.
        """
        for cell in self.cells:
            if cell["kind"] == "gallery" and cell["about"]["craft"] == craft and cell["done"]:
                content, titles = self._store.get(cell["key"], ARRAYS), cell["about"]["interpreters"]
                parts = {} if content is None else unpack(content)
                named = {name: name.partition(".")[::2] for name in parts}
                return {f"{a}.{titles[int(i)]}" if i else a: parts[name] for name, (a, i) in named.items()}
        return {}

    def gallery_ids(self, craft: str) -> list[str]:
        """Return the names of the images in `gallery(craft)`."""
        return [row["id"] for row in self.sql("SELECT cell, craft, id FROM gallery") if row["craft"] == craft]

    @cached_property
    def _done(self) -> set[str]:
        return self._store.keys()

    @cached_property
    def _database(self) -> Any:
        import duckdb

        # One thread: several sum in an order of their own, and the last digit of a mean differs between readings.
        database = duckdb.connect(":memory:", config={"threads": 1})
        database.execute("SET enable_progress_bar = false")
        for name, kind in KINDS.items():
            planned = [cell for cell in self.about["cells"] if cell["kind"] == name]
            told = [{"cell": cell["key"], **cell["about"]} for cell in planned]
            about = pa.schema([("cell", pa.string()), *kind.about])
            database.register(f"{name}_cells", pa.Table.from_pylist(told, schema=about))
            if kind.schema is not None:
                database.register(
                    f"{name}_written", self._written(list(dict.fromkeys(c["key"] for c in planned)), kind)
                )
        for kind in KINDS.values():
            for name, query in kind.views(self.spec).items():
                database.execute(f"CREATE TABLE {name} AS {query}")
        return database

    def _written(self, keys: list[str], kind: Any) -> pa.Table:
        """Return what the cells of one kind wrote, with the key of the cell in front."""
        schema = pa.schema([("cell", pa.string()), *kind.schema])
        tables = [schema.empty_table()]
        for key, content in self._store.read([key for key in keys if key in self._done], TABLE).items():
            try:
                table = pq.read_table(pa.BufferReader(content))
            except pa.ArrowInvalid:
                place = f"{self.path}/cells/{key}"
                raise LedgerError(f"{place}/{TABLE} is damaged; delete its folder and run the audit again") from None
            tables.append(table.add_column(0, schema.field("cell"), pa.array([key] * len(table), pa.string())))
        return pa.concat_tables(tables)


def read_head(store: Store, path: str) -> dict[str, Any]:
    """Return the content of a run folder's ledger.json.

    Raises:
        LedgerError: there is none, it is damaged, or was written by another version of underfire.
    """
    content = store.get_head(HEAD)
    if content is None:
        raise LedgerError(f"{path!r} is not a run folder: it has no {HEAD}")
    try:
        head = json.loads(content)
    except (ValueError, UnicodeDecodeError):
        raise LedgerError(f"{path!r} is damaged: its {HEAD} is not JSON; run the audit again") from None
    if not isinstance(head, dict) or not isinstance(head.get("schema"), int):
        raise LedgerError(f"{path!r} is damaged: its {HEAD} has no schema version; run the audit again")
    if head["schema"] != SCHEMA:
        writer = f"underfire {head.get('underfire', '?')} (schema {head['schema']})"
        advice = "upgrade underfire" if head["schema"] > SCHEMA else "run the audit again in a new folder"
        raise LedgerError(f"{path!r} was written by {writer}; this one reads schema {SCHEMA}: {advice}")
    return head


def write_head(store: Store, head: dict[str, Any]) -> None:
    """Write ledger.json, whole or not at all.

    Raises:
        LedgerError: the store cannot be written.
    """
    store.put_head(HEAD, json.dumps({"schema": SCHEMA, **head}, indent=1).encode())
