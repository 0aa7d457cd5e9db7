"""JSON and CSV: the numbers of the page and the rows of the ledger."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from underfire import report
from underfire.audit.ledger import TABLES, Ledger
from underfire.report.export import _without_formulas

pytestmark = pytest.mark.slow

Synthetic = Callable[..., Ledger]


def test_json_has_every_number_with_its_interval(synthetic: Synthetic) -> None:
    content = json.loads(json.dumps(report.to_json(synthetic(missing=1)), allow_nan=False))
    assert (content["missing"], content["planned"]) == (1, 54)
    assert content["clean"] == pytest.approx({"value": 0.95, "low": 0.8872, "high": 0.9836, "n": 100}, abs=1e-4)
    worst = next(result for result in content["robust"] if result["norm"] == "linf" and result["eps"] == 8 / 255)
    assert worst["worst"] == "pgd linf"
    assert worst["robust"]["value"] == pytest.approx(0.02)
    plausible = next(s for s in content["shifts"] if s["attacked"] == s["interpreter"])["plausible"]
    assert (plausible["value"], plausible["n"]) == (pytest.approx(90 / 95), 95)
    assert {f["atlas"] for f in content["findings"]} == {"AML.T0043.000"}
    assert content["checks"] == []
    assert list(content)[:3] == ["underfire", "headline", "gap"] and content["gap"].startswith("Prediction")
    assert f"{content['gaps'][0]['value']['value']:.2f}" in content["gap"]
    assert {t["label"] for t in content["interpreter_transfers"] if t["source"]} == {"adv2 grad_cam"}
    assert content["spec"]["model"]["uri"] == "zoo:cluttered_digits"


def test_json_has_no_nan(synthetic: Synthetic) -> None:
    content = report.to_json(synthetic(n=1, gallery=0, masks=False))
    json.dumps(content, allow_nan=False)
    assert content["shifts"][0]["iou"]["low"] is None


def test_csv_has_no_formula() -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "plain", "a=b", None]
    table = pa.table({"=label": texts, "id": pa.array(texts).dictionary_encode(), "n": [-1.0] * 8})
    safe = _without_formulas(table)
    assert safe.column_names == ["'=label", "id", "n"] and safe["n"].to_pylist() == [-1.0] * 8
    wanted = ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "plain", "a=b", None]
    assert safe["'=label"].to_pylist() == safe["id"].to_pylist() == wanted


def test_csv_has_every_table_in_a_folder(synthetic: Synthetic, tmp_path: Path) -> None:
    files = report.to_csv(synthetic(), tmp_path / "out")
    assert sorted(path.name for path in files) == sorted(f"{name}.csv" for name in TABLES)
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(files)
    with (tmp_path / "out" / "rows.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 13 * 100
    assert list(rows[0])[:7] == ["cell", "attack", "label", "attacked", "norm", "eps", "seed"]
    assert (
        sum(row["success"] == "true" for row in rows if row["label"] == "pgd linf" and row["eps"] == str(8 / 255)) == 93
    )


def test_csv_into_one_file_has_the_rows(synthetic: Synthetic, tmp_path: Path) -> None:
    assert report.to_csv(synthetic(), tmp_path / "all.csv") == [tmp_path / "all.csv"]
    assert tmp_path.joinpath("all.csv").read_text(encoding="utf-8").count("\n") == 1 + 13 * 100
