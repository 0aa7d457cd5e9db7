"""Damage: a file of a run that was changed, cut or deleted is named, the rest is read, and the run makes it again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.chaos.faults import flip
from underfire.audit.ledger import SCHEMA, Ledger
from underfire.audit.run import Event, run
from underfire.audit.seals import seal
from underfire.audit.spec import AuditSpec, parse_spec
from underfire.audit.store import Damaged, Store
from underfire.errors import LedgerError
from underfire.report.page import render

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

QUERIES = (
    "SELECT * FROM clean ORDER BY ALL",
    "SELECT * EXCLUDE (seconds) FROM rows ORDER BY ALL",
    "SELECT * FROM measures ORDER BY ALL",
)
FAULTS: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: path.write_bytes(flip(path.read_bytes(), random.Random(0))),
    "an emptied file": lambda path: path.write_bytes(b""),
    "a deleted file": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def spec() -> AuditSpec:
    """Two shards, so that a result is left beside every damaged one."""
    return parse_spec(
        {
            "model": "python:audit_networks:linear",
            "data": {"uri": "digits:", "n": 20, "seed": 1},
            "attacks": [{"name": "pgd", "norm": "linf", "eps": 0.1, "steps": 2}],
            "interpreters": ["gradient"],
            "masking": False,
            "gallery": 2,
            "shard_size": 10,
        }
    )


@pytest.fixture(scope="module")
def done(spec: AuditSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which the tests copy."""
    return Path(run(spec, tmp_path_factory.mktemp("run")).path)


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(done, tmp_path / "run"))


def _tables(ledger: Ledger) -> list[Any]:
    return [json.loads(json.dumps(ledger.sql(query))) for query in QUERIES]


def test_every_file_of_a_run_is_covered(folder: Path) -> None:
    """A flip of any bit of any file is noticed; two bits of each file stand for all."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"ledger.json", "manifest.json", "table.parquet", "arrays.bin"}
    store = Store(folder)
    keys = sorted(store.keys())
    assert store.damaged(keys) == {}
    for path in files:
        whole = path.read_bytes()
        for seed in (1, 2):
            path.write_bytes(flip(whole, random.Random(seed)))
            if path.name == "ledger.json":
                with pytest.raises(Damaged, match=r"ledger\.json"):
                    Ledger(folder)
            else:
                assert store.damaged(keys) == {path.parent.name: str(path.relative_to(folder))}
        path.write_bytes(whole)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["table.parquet", "arrays.bin", "manifest.json"])
def test_damage_is_named_and_the_run_makes_the_rest_whole(folder: Path, spec: AuditSpec, fault: str, name: str) -> None:
    before = Ledger(folder)
    expected, cells = _tables(before), before.cells
    # damage one file of every kind of cell, of the first shard
    chosen = {cell["kind"]: cell["key"] for cell in reversed(cells)}
    keys = [key for key in chosen.values() if (folder / "cells" / key / name).exists()]
    keys += [f"{key}-arrays" for key in chosen.values() if (folder / "cells" / f"{key}-arrays" / name).exists()]
    for key in keys:
        FAULTS[fault](folder / "cells" / key / name)
    # the damaged results are named and the others are read
    after = Ledger(folder)
    gone = (name, fault) == ("manifest.json", "a deleted file")  # then there is no cell
    results = {key for key in keys if not key.endswith("-arrays")}
    assert set(after.damaged) == (set() if gone else results)
    assert after.missing == len(results)
    assert len(after.sql("SELECT * FROM clean")) >= 10
    page = render(after)
    assert all(place in page for place in sorted(after.damaged.values())[:3])
    # the same run makes them again, and nothing else
    events: list[Event] = []
    again = run(spec, folder, progress=events.append)
    assert len(events[0].damaged) == (0 if gone else len(results))
    assert (again.missing, again.damaged) == (0, {})
    assert _tables(again) == expected


def test_a_damaged_or_missing_head_does_not_stop_a_run(folder: Path, spec: AuditSpec) -> None:
    (folder / "report.html").write_text("a page")
    for content in (b"", b"{", flip((folder / "ledger.json").read_bytes(), random.Random(3)), None):
        (folder / "ledger.json").write_bytes(content) if content is not None else (folder / "ledger.json").unlink()
        with pytest.raises(LedgerError, match=r"ledger\.json"):
            Ledger(folder)
        events: list[Event] = []
        assert run(spec, folder, progress=events.append).missing == 0
        assert events[0].of_cells == 0


def test_a_run_that_was_killed_before_its_first_file_continues(spec: AuditSpec, tmp_path: Path) -> None:
    (tmp_path / ".part-0123456789ab").write_bytes(b'{"schema"')
    (tmp_path / "cells").mkdir()
    assert run(spec, tmp_path).missing == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / ".part-0123456789ab").write_bytes(b"{")
    assert run(spec, other).missing == 0


def test_a_damaged_head_without_results_names_the_file_to_remove(spec: AuditSpec, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("someone else's")
    with pytest.raises(LedgerError, match=r"remove ledger\.json"):
        run(spec, tmp_path)
    (tmp_path / "ledger.json").unlink()
    assert run(spec, tmp_path).missing == 0


@pytest.mark.parametrize("key", ["spec", "cells"])
@pytest.mark.parametrize("value", [None, 1, [], {}, [{"key": 1}], {"model": "x"}])
def test_a_ledger_without_a_spec_or_cells_is_one_line(folder: Path, key: str, value: Any) -> None:
    head = json.loads((folder / "ledger.json").read_bytes())
    del head["checksum"]
    head = {name: part for name, part in head.items() if name != key} | ({key: value} if value else {})
    (folder / "ledger.json").write_bytes(seal({**head, "schema": SCHEMA}))
    with pytest.raises(LedgerError, match=key) as caught:
        Ledger(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"123", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"x" * 20])
def test_a_gallery_of_another_content_is_one_line(folder: Path, content: bytes) -> None:
    """Its checksum is right: someone else wrote it."""
    (cell,) = [cell for cell in Ledger(folder).cells if cell["kind"] == "gallery"][:1]
    store = Store(folder)
    table = store.get(cell["key"], "table.parquet")
    assert table is not None
    store.delete(cell["key"])
    store.put(cell["key"], {"table.parquet": table, "arrays.bin": content})
    with pytest.raises(Damaged, match=r"arrays\.bin") as caught:
        Ledger(folder).gallery(cell["about"]["craft"])
    assert "\n" not in str(caught.value)
    store.delete(cell["key"])
    store.put(cell["key"], {"table.parquet": content, "arrays.bin": b""})
    with pytest.raises(Damaged, match=r"table\.parquet"):
        Ledger(folder).sql("SELECT * FROM clean")
