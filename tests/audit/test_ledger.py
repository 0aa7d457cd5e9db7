"""Ledgers: what was written is read back, from any filesystem, and what is not a ledger is said to be none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from underfire.audit.kinds import masking
from underfire.audit.ledger import SCHEMA, TABLES, Ledger
from underfire.audit.run import run
from underfire.audit.spec import AuditSpec
from underfire.errors import InputError, LedgerError
from underfire.models import load as load_model

Small = Callable[..., AuditSpec]


@pytest.fixture
def ledger(small: Small, tmp_path: Path) -> Ledger:
    """The small audit, done."""
    return run(small(batch_size=2), tmp_path / "run")


@pytest.mark.slow
def test_every_table_is_there_even_without_rows(ledger: Ledger) -> None:
    assert ledger.sql("SELECT count(*) AS n FROM checks") == [{"n": 0}]
    assert ledger.table("checks").schema.names == [*masking.schema.names, "label", "norm", "eps"]
    wide = ["map_l1", "map_l2", "map_iou", "mass_inside_clean", "mass_inside_adv"]
    assert ledger.table("maps").schema.names[-5:] == wide
    sizes = {name: len(ledger.table(name)) for name in TABLES}
    (fooled,) = ledger.sql("SELECT count(*) AS n FROM rows WHERE success AND pred_clean = y")
    assert sizes.pop("interpreter_transfer") == fooled["n"] > 0  # one interpreter
    assert set(sizes.values()) == {0, 60, 120, 480}  # four measures of two sizes


def test_the_spec_and_the_environment_are_kept(ledger: Ledger, small: Small) -> None:
    assert ledger.spec == small(batch_size=2, shard_size=64)  # the size that was chosen for the cells
    about = ledger.environment
    assert about["images"] == 60
    assert about["parameters"] == 650
    assert about["labels"] == [str(k) for k in range(10)]
    kinds = Counter(cell["kind"] for cell in ledger.cells)
    assert kinds == {"clean": 1, "craft": 2, "explain": 3, "measure": 2, "gallery": 2}
    assert all(cell["done"] for cell in ledger.cells)


@pytest.mark.slow
def test_the_gallery_is_what_the_rows_say(ledger: Ledger) -> None:
    model = load_model("python:audit_networks:linear")
    crafts = [cell["key"] for cell in ledger.cells if cell["kind"] == "craft"]
    assert ledger.gallery("no cell") == {}
    for key in crafts:
        kept, ids = ledger.gallery(key), ledger.gallery_ids(key)
        assert ids == [row["id"] for row in ledger.sql("SELECT * FROM clean WHERE pred = y")][:6]  # twice `gallery`
        assert set(kept) == {"x", "x_adv", "map_clean.gradient", "map_adv.gradient"}
        assert {tuple(value.shape) for value in kept.values()} == {(6, 1, 8, 8)}
        for i, name in enumerate(ids):
            (row,) = ledger.sql(f"SELECT * FROM rows WHERE cell = '{key}' AND id = '{name}'")
            gap = (kept["x_adv"][i] - kept["x"][i]).abs().max()
            assert row["linf"] == pytest.approx(float(gap), abs=1e-7)
            assert row["pred_adv"] == int(model(kept["x_adv"][i : i + 1]).argmax())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "shifted"])  # the second is always wrong
def test_the_gallery_looks_for_right_images_in_several_shards(small: Small, tmp_path: Path, name: str) -> None:
    data, model = {"uri": "digits:", "n": 8, "seed": 1}, f"python:audit_networks:{name}"
    ledger = run(small(model=model, data=data, shard_size=2, gallery=1), tmp_path / "run")
    kinds = Counter(cell["kind"] for cell in ledger.cells)
    assert (kinds["craft"], kinds["gallery"]) == (8, 4)  # two of the four shards have four times one image
    right = {row["id"] for row in ledger.sql("SELECT id FROM clean WHERE pred = y")}
    stored = {row["id"] for row in ledger.sql("SELECT id FROM gallery")}
    assert stored <= right and bool(stored) == bool(right) == (name == "linear")
    assert ledger.missing == 0 and ledger.refusals == ()


@pytest.mark.slow
def test_it_is_written_to_and_read_from_any_filesystem(ledger: Ledger, small: Small) -> None:
    there = run(small(batch_size=2), "memory://bucket/run")
    query = "SELECT id, eps, pred_adv, linf FROM rows ORDER BY ALL"
    assert there.sql(query) == ledger.sql(query)
    assert Ledger("memory://bucket/run").missing == 0
    key = ledger.sql("SELECT DISTINCT cell FROM rows")[0]["cell"]
    assert torch.equal(there.gallery(key)["x_adv"], ledger.gallery(key)["x_adv"])


@pytest.mark.slow
def test_the_same_question_has_the_same_answer_to_the_last_digit(ledger: Ledger) -> None:
    means = "SELECT label, id, avg(seconds) AS seconds, avg(conf_adv) AS conf FROM rows GROUP BY label, id"
    query = f"SELECT label, avg(seconds), avg(conf) FROM ({means}) GROUP BY label ORDER BY label"
    first = ledger.sql(query)
    assert all(Ledger(ledger.path).sql(query) == first for _ in range(10))
    assert ledger.sql("SELECT current_setting('threads') AS threads") == [{"threads": 1}]  # or it is luck on few cores


@pytest.mark.slow
def test_a_wrong_query_is_bad_input(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="the query failed: "):
        ledger.sql("SELECT epsilon FROM rows")


def test_what_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nothing' is not a run"):
        Ledger(tmp_path / "nothing")
    for content in ("{", "[]", json.dumps({"schema": "one"}), json.dumps({"schema": SCHEMA})):
        (tmp_path / "ledger.json").write_text(content)
        with pytest.raises(LedgerError, match="is damaged"):
            Ledger(tmp_path)


def test_a_folder_of_another_version_is_refused_and_left_alone(small: Small, tmp_path: Path) -> None:
    for schema, advice in ((1, "in a new folder"), (99, "upgrade underfire")):
        content = json.dumps({"schema": schema, "underfire": "9.0"})
        (tmp_path / "ledger.json").write_text(content)
        for use in (lambda: run(small(), tmp_path), lambda: Ledger(tmp_path)):
            with pytest.raises(LedgerError, match=rf"underfire 9.0 \(schema {schema}\).*{advice}") as caught:
                use()
            assert "\n" not in str(caught.value)
        assert (tmp_path / "ledger.json").read_text() == content
        assert [place.name for place in tmp_path.iterdir()] == ["ledger.json"]
