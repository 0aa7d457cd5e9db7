"""Every measure that the catalogue offers to an audit runs from a spec, and its values are those of a direct call."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any

import pytest
import torch

import underfire as uf
from underfire.audit import binding
from underfire.audit.map_shifts import map_shifts
from underfire.audit.reading import attack_results
from underfire.audit.run import run
from underfire.audit.schema import MeasureSpec
from underfire.audit.spec import AuditSpec, parse_spec
from underfire.errors import SpecError

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

Small = Callable[..., AuditSpec]


@pytest.mark.slow
def test_every_measure_gives_one_value_per_image(small: Small, tmp_path: Any) -> None:
    names = binding.usable()
    spec = small(data={"uri": "digits:", "n": 24, "seed": 1}, measures=names, gallery=24)
    ledger = run(spec, tmp_path / "run")
    found = ledger.sql("SELECT measure, count(*) AS n, count(clean) AS clean FROM measures GROUP BY measure")
    assert {row["measure"]: row["n"] for row in found} == dict.fromkeys(names, 48)
    # sizes and success are those of the rows, and a clean margin is positive where the clean answer is right
    query = "SELECT r.*, m.clean, m.value FROM rows r JOIN measures m USING (cell, id, eps) WHERE measure = '{}'"
    assert all(row["value"] == row["linf"] for row in ledger.sql(query.format("linf")))
    assert all(row["value"] == row["l0"] for row in ledger.sql(query.format("l0_pixels")))
    assert all(row["value"] == row["success"] for row in ledger.sql(query.format("success")))
    assert all((row["clean"] > 0) == (row["pred_clean"] == row["y"]) for row in ledger.sql(query.format("margin")))
    # measures of maps are those of a direct call on the maps and images that the gallery has
    model = uf.models.load("python:audit_networks:linear")
    rows = ledger.sql(query.format("insertion") + " AND eps = 0.1")
    kept, ids = ledger.gallery(rows[0]["cell"]), ledger.gallery_ids(rows[0]["cell"])
    pred = model.predict(kept["x_adv"]).argmax(1)
    direct = uf.find("measure", "insertion").function(model, kept["x_adv"], pred, kept["map_adv.gradient"])
    told = {row["id"]: row["value"] for row in rows}
    torch.testing.assert_close(torch.tensor([told[name] for name in ids]), direct, equal_nan=True)


def test_the_means_of_the_measures_are_read(small: Small, tmp_path: Any) -> None:
    measures = ["map_iou", "l2", {"name": "insertion", "label": "in 4 steps", "steps": 4}, "margin"]
    ledger = run(small(measures=measures), tmp_path / "run")
    (result, _), (shift, _) = attack_results(ledger), map_shifts(ledger)
    assert set(result.measures) == {"l2", "margin"}
    assert result.measures["l2"].clean is None
    margin = result.measures["margin"]
    assert margin.clean is not None
    assert margin.clean.value > margin.value.value
    assert {"map_iou", "in 4 steps"} <= set(shift.measures)
    assert shift.measures["map_iou"].value == shift.iou
    assert "in 4 steps_adv" in ledger.table("maps").schema.names


@pytest.mark.parametrize("label", ["y", "id", "success", "pred_clean", 'a "quoted" one', "it's"])
def test_a_label_may_be_any_text(small: Small, tmp_path: Any, label: str) -> None:
    """Labels that are columns of other tables, or that SQL has a meaning for, change no number."""
    measures = [{"name": "map_ssim", "label": label}, {"name": "map_ssim", "label": "other"}, "map_ssim"]
    spec = small(data={"uri": "digits:", "n": 12, "seed": 1}, measures=measures)
    ledger = run(spec, tmp_path / "run")
    plain = run(spec.model_copy(update={"measures": spec.measures[2:]}), tmp_path / "plain")
    assert [s.plausible for s in map_shifts(ledger)] == [s.plausible for s in map_shifts(plain)]
    assert [s.iou for s in map_shifts(ledger)] == [s.iou for s in map_shifts(plain)]
    values = map_shifts(ledger)[0].measures
    assert values[label] == values["other"] == values["map_ssim"] == map_shifts(plain)[0].measures["map_ssim"]
    assert len(ledger.table("measures")) == 5 * len(ledger.table("maps"))  # each with map_l1 and map_iou, and once


@pytest.mark.parametrize(
    ("measure", "fact"),
    [
        ("map_iuo", "did you mean 'map_iou'"),
        ("accuracy", "'measures[0].name'"),
        ({"name": "insertion", "stpes": 4}, "did you mean 'steps'"),
        ({"name": "map_l2", "label": "map_l1"}, "another label"),
        ({"name": "map_ssim", "label": "MAP_IOU"}, "another label"),
    ],
)
def test_a_measure_that_no_audit_computes(content: Callable[..., Any], measure: Any, fact: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(content(measures=[measure]))
    assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_measure_that_needs_a_mask_is_unknown_without_one() -> None:
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = binding.bind(MeasureSpec(name="mass_inside"))({"x": x, "m": x, "mask": None})
    assert all(map(isnan, found.tolist()))
