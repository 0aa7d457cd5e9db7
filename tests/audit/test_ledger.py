"""Ledgers: what was written is read back, from any filesystem, and what is not a ledger is said to be none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch

from underfire import data
from underfire.audit.ledger import TABLES, Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.errors import InputError, LedgerError
from underfire.models import load as load_model

Small = Callable[..., AuditSpec]


@pytest.fixture
def ledger(small: Small, tmp_path: Path) -> Ledger:
    """The small audit, done."""
    return run(small(batch_size=2), tmp_path / "run")  # so that the gallery of three comes from two batches


def test_every_table_has_its_columns_even_without_rows(ledger: Ledger) -> None:
    assert {name: ledger.table(name).schema for name in TABLES} == TABLES
    assert ledger.sql("SELECT count(*) AS n FROM checks") == [{"n": 0}]


def test_the_spec_and_the_environment_are_kept(ledger: Ledger, small: Small) -> None:
    assert ledger.spec == small(batch_size=2)
    about = ledger.environment
    assert about["images"] == 60
    assert about["parameters"] == 650
    assert about["labels"] == [str(k) for k in range(10)]
    assert [cell["kind"] for cell in ledger.cells] == ["clean", "attack", "attack"]
    assert all(cell["done"] for cell in ledger.cells)


def test_the_gallery_is_what_the_rows_say(ledger: Ledger) -> None:
    clean, *attacks = ledger.cells
    assert ledger.gallery(clean["key"]) == {}
    assert ledger.gallery_ids(clean["key"]) == []
    model = load_model("python:audit_networks:linear")
    for cell in attacks:
        kept, ids = ledger.gallery(cell["key"]), ledger.gallery_ids(cell["key"])
        assert list(ids) == list(data.load("digits:", n=60, seed=1)[:3].ids)
        names = {"x", "x_adv", "y", "pred_clean", "pred_adv", "map_clean.gradient", "map_adv.gradient"}
        assert set(kept) == names
        assert {tuple(kept[name].shape) for name in names if name.startswith("map")} == {(3, 1, 8, 8)}
        for i, name in enumerate(ids):
            (row,) = ledger.sql(f"SELECT * FROM rows WHERE cell = '{cell['key']}' AND id = '{name}'")
            gap = (kept["x_adv"][i] - kept["x"][i]).abs().max()
            assert row["linf"] == pytest.approx(float(gap), abs=1e-7)
            assert row["pred_adv"] == int(model(kept["x_adv"][i : i + 1]).argmax()) == int(kept["pred_adv"][i])


def test_it_is_read_from_any_filesystem(ledger: Ledger) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(ledger.path, "/bucket/run", recursive=True)
    there = Ledger("memory://bucket/run")
    query = "SELECT id, eps, pred_adv FROM rows ORDER BY ALL"
    assert there.sql(query) == ledger.sql(query)
    assert there.missing == 0
    key = there.cells[1]["key"]
    assert torch.equal(there.gallery(key)["x_adv"], ledger.gallery(key)["x_adv"])


def test_the_same_question_has_the_same_answer_to_the_last_digit(ledger: Ledger) -> None:
    means = "SELECT label, id, avg(seconds) AS seconds, avg(conf_adv) AS conf FROM rows GROUP BY label, id"
    query = f"SELECT label, avg(seconds), avg(conf) FROM ({means}) GROUP BY label ORDER BY label"
    first = ledger.sql(query)
    assert all(Ledger(ledger.path).sql(query) == first for _ in range(100))
    assert ledger.sql("SELECT current_setting('threads') AS threads") == [{"threads": 1}]  # or it is luck on few cores


def test_a_wrong_query_is_bad_input(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="the query failed: "):
        ledger.sql("SELECT epsilon FROM rows")


def test_what_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nothing' .* no ledger.json"):
        Ledger(tmp_path / "nothing")
    for content in ("{", "[]", json.dumps({"schema": "one"})):
        (tmp_path / "ledger.json").write_text(content)
        with pytest.raises(LedgerError, match="is damaged: its ledger.json"):
            Ledger(tmp_path)


def test_a_damaged_cell_is_named(ledger: Ledger) -> None:
    key = ledger.cells[0]["key"]
    (Path(ledger.path) / "cells" / key / "clean.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(LedgerError, match=f"{key}/clean.parquet is damaged"):
        Ledger(ledger.path).sql("SELECT * FROM clean")
