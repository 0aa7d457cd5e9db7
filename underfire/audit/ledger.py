"""The ledger: the results of a run, as tables of an in-memory database.

The file `ledger.json` in the run folder contains the schema version, the spec, the environment and the cells of the
current plan. The results of the cells are in the store of the folder (see `underfire.audit.store`).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from underfire.audit.arrays import unpack
from underfire.audit.credibility import Refusal
from underfire.audit.kinds import KINDS
from underfire.audit.result import ARRAYS, REFUSED, TABLE, columns
from underfire.audit.schema import AuditSpec
from underfire.audit.seals import parse_object, seal, unseal
from underfire.audit.store import Damaged, Store
from underfire.audit.values import as_text
from underfire.errors import DataError, InputError, LedgerError

SCHEMA = 3
"""The version of the layout of a run folder and of the meaning of the columns."""

HEAD = "ledger.json"
_ADVICE = f"run the audit again, or remove {HEAD} if that is refused"
_METHODS = {
    "craft": "attack",
    "explain": "interpreter",
    "fit": "detector",
    "score": "detector",
    "measure": "measure",
    "masking": "check",
}
"""The kinds of cells that run a method of the spec or a check, which may not support the model."""

TABLES = (
    *("clean", "rows", "maps", "measures", "interpreter_transfer", "scores", "clean_scores", "aware_scores"),
    *("checks", "answers", "sample", "transfer"),
)
"""The tables of every ledger; a table without results is empty."""


class _CellEntry(BaseModel):
    """A cell as in `Cell.as_dict`."""

    key: str
    kind: str
    about: dict[str, Any]


class _Head(BaseModel):
    """The parts of `ledger.json` that a ledger needs."""

    model_config = ConfigDict(extra="allow")

    spec: AuditSpec
    cells: list[_CellEntry]
    environment: dict[str, Any] = {}


class Ledger:
    """The results of a run so far.

    A result that was damaged after it was written counts as missing, and everything else can be read.

    Args:
        path: the run folder, a path or a URL that fsspec knows (`s3://bucket/run`).

    Raises:
        LedgerError: `path` is not a run folder, its `ledger.json` is damaged, or was written by another version of
            underfire.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._store = Store(path)
        self.about = read_head(self._store, self.path)
        try:
            self.spec = _Head.model_validate(self.about).spec
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise Damaged(f"{self.path!r} is damaged: {key!r} in its {HEAD}: {first['msg']}; {_ADVICE}") from None

    @property
    def environment(self) -> dict[str, Any]:
        """The versions, the machine, the model and the data of the last run, as plain values."""
        return dict(self.about.get("environment", {}))

    @cached_property
    def damaged(self) -> dict[str, str]:
        """The results of the current plan that were damaged after they were written: the path of a file, by key."""
        planned = dict.fromkeys(cell["key"] for cell in self.about["cells"])
        return self._store.damaged(key for key in planned if key in self._stored)

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells of the current plan as in `Cell.as_dict`, each with `done`, whether it has a result."""
        return [{**cell, "done": cell["key"] in self._done} for cell in self.about["cells"]]

    @property
    def planned(self) -> int:
        """The number of results that the plan contains."""
        return len({cell["key"] for cell in self.about["cells"]})

    @property
    def missing(self) -> int:
        """The number of planned results that do not exist yet or are damaged."""
        return len({cell["key"] for cell in self.about["cells"]} - self._done)

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        """The methods of the spec that could not be run on this model, each once, with the reason."""
        done = [cell["key"] for cell in self.about["cells"] if cell["kind"] in _METHODS and cell["key"] in self._done]
        reasons = self._store.read(done, REFUSED)
        groups: dict[tuple[str, str], list[str]] = {}
        for cell in self.about["cells"]:
            role = _METHODS.get(cell["kind"])
            # A cell is not counted as a refusal if a cell that it needs was refused.
            if role and not any(key in reasons for key in cell.get("needs", {}).values()):
                about = cell["about"]
                title = str(about.get("title", role)).partition(" of ")[0]
                name = about.get("label" if role == "attack" else role, title)
                name = f"{name} without {about['left_out']}" if about.get("left_out") else name
                groups.setdefault((role, str(name)), []).append(cell["key"])
        found = []
        for (role, name), keys in groups.items():
            refused = [reasons[key].decode() for key in keys if key in reasons]
            if refused:
                found.append(Refusal(role, name, refused[0], len(refused), len(keys)))
        return tuple(found)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of an SQL query over the tables in `TABLES`.

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
        """Return one table, with the results of the cells of the current plan."""
        return self._database.table(name).to_arrow_table()

    def gallery(self, craft: str) -> dict[str, Tensor]:
        """Return the images and maps of an attack that were stored for the report, by name; empty if there are none.

        All of these images are classified correctly without an attack.

        The names are `x`, `x_adv`, and `map_clean.TITLE` and `map_adv.TITLE` for every interpreter.

        Args:
            craft: the key of the attack's cell, the column `cell` of the table `rows`.
        """
        for cell in self.cells:
            if cell["kind"] == "gallery" and cell["about"]["craft"] == craft and cell["done"]:
                content, titles = self._store.get(cell["key"], ARRAYS), cell["about"]["interpreters"]
                try:
                    parts = {} if content is None else unpack(content)
                except DataError as error:
                    raise Damaged(f"{self.path}/cells/{cell['key']}/{ARRAYS} is damaged: {error}") from None
                named = {name: name.partition(".")[::2] for name in parts}
                return {f"{a}.{titles[int(i)]}" if i else a: parts[name] for name, (a, i) in named.items()}
        return {}

    def gallery_ids(self, craft: str) -> list[str]:
        """Return the names of the images in `gallery(craft)`."""
        return [row["id"] for row in self.sql("SELECT cell, craft, id FROM gallery") if row["craft"] == craft]

    @cached_property
    def _stored(self) -> set[str]:
        return self._store.keys()

    @cached_property
    def _done(self) -> set[str]:
        return self._stored - set(self.damaged)

    @cached_property
    def _database(self) -> Any:
        """The tables of the run in an in-memory database."""
        import duckdb

        # One thread: with several, the order of a sum changes between readings, and so does the last digit of a mean.
        database = duckdb.connect(":memory:", config={"threads": 1})
        database.execute("SET enable_progress_bar = false")
        for name, kind in KINDS.items():
            planned = [cell for cell in self.about["cells"] if cell["kind"] == name]
            rows = [{"cell": cell["key"], **cell["about"]} for cell in planned]
            about = pa.schema([("cell", pa.string()), *kind.about])
            try:
                database.register(f"{name}_cells", pa.Table.from_pylist(rows, schema=about))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                raise Damaged(f"{self.path!r} is damaged: 'cells' in its {HEAD} has a wrong value; {_ADVICE}") from None
            if kind.schema is not None:
                database.register(
                    f"{name}_written", self._written(list(dict.fromkeys(c["key"] for c in planned)), kind)
                )
        kinds = ("transfer", "evade")
        shown = [c["key"] for c in self.about["cells"] if c["kind"] in kinds and c["key"] in self._done]
        reasons = self._store.read(dict.fromkeys(shown), REFUSED)
        refused = {"cell": list(reasons), "reason": [content.decode() for content in reasons.values()]}
        database.register("refused", pa.table(refused, schema=columns("cell:s reason:s")))
        for kind in KINDS.values():
            for name, query in kind.views(self.spec).items():
                database.execute(f"CREATE TABLE {name} AS {query}")
        return database

    def _written(self, keys: list[str], kind: Any) -> pa.Table:
        """Return the tables that the cells of one kind wrote as one table, with the key of the cell as first column."""
        schema = pa.schema([("cell", pa.string()), *kind.schema])
        tables = [schema.empty_table()]
        for key, content in self._store.read([key for key in keys if key in self._done], TABLE).items():
            try:
                table = pq.read_table(pa.BufferReader(content)).select(kind.schema.names).cast(kind.schema)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                place = f"{self.path}/cells/{key}/{TABLE}"
                raise Damaged(f"{place} is damaged ({error}); delete its folder and run the audit again") from None
            tables.append(table.add_column(0, schema.field("cell"), pa.array([key] * len(table), pa.string())))
        return pa.concat_tables(tables)


def read_head(store: Store, path: str) -> dict[str, Any]:
    """Return the content of the file `ledger.json` of a run folder.

    Raises:
        Damaged: the file is not JSON, has no schema version, or was changed after it was written.
        LedgerError: the file does not exist, or was written by another version of underfire.
    """
    content = store.get_head(HEAD)
    if content is None:
        raise LedgerError(f"{path!r} is not a run folder: it has no {HEAD}")
    try:
        head = parse_object(content)
        schema = head.get("schema")
        if not isinstance(schema, int):
            raise ValueError("has no schema version")
        if schema == SCHEMA or "checksum" in head:
            head = unseal(content)
    except ValueError as error:
        raise Damaged(f"{path!r} is damaged: its {HEAD} {error}; {_ADVICE}") from None
    if schema == SCHEMA:
        return head
    writer = f"underfire {head.get('underfire', '?')} (schema {schema})"
    advice = "upgrade underfire" if schema > SCHEMA else "run the audit again in a new folder"
    raise LedgerError(f"{path!r} was written by {writer}; this one reads schema {SCHEMA}: {advice}")


def write_head(store: Store, head: dict[str, Any]) -> None:
    """Write the file `ledger.json`, whole or not at all.

    Raises:
        LedgerError: the store cannot be written.
    """
    store.put_head(HEAD, seal({"schema": SCHEMA, **head}, default=as_text))
