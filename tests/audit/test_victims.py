"""Victims and sources that do not fit are named, and those that scale images or are ensembles are what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.audit.transfer_specs import BITS, LINEAR, NARROW, PLAIN
from underfire.audit.plan import plan
from underfire.audit.run import run
from underfire.audit.spec import parse_spec
from underfire.audit.summary import findings
from underfire.errors import SpecError


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"victims": [{"defenses": ["jpg"]}]}, "jpeg"),
        ({"victims": [{"defenses": [{"name": "bit_depth", "bit": 2}]}]}, "bits"),
        ({"victims": [LINEAR, LINEAR]}, r"victims\[1\].label"),
        ({"sources": [{"model": LINEAR, "labl": "a"}]}, "label"),
        ({"sample": 10}, "sample"),
        ({"draws": 3}, "draws"),
        ({"victims": [LINEAR], "sample": {"hash": "12"}}, "sample.n"),
    ],
)
def test_a_wrong_key_is_named(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(SpecError, match=fact):
        parse_spec(PLAIN | changes)


@pytest.mark.parametrize(
    ("victim", "fact"),
    [
        ("python:audit_networks:three_classes", "3 classes"),
        ("python:audit_networks:wide", "1x8x8.*resize"),
        ("python:audit_networks:other_names", "other classes.*'zero'"),
        ("python:audit_networks:nowhere", "nowhere"),
        ({"model": LINEAR, "resize": True}, "resize"),
        ("python:audit_networks:reversed_classes", "order"),
    ],
)
def test_a_victim_that_does_not_fit_is_named(victim: Any, fact: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=rf"victims\[0\].*{fact}"):
        run(parse_spec(PLAIN | {"victims": [victim]}), tmp_path)


def test_a_victim_of_another_size_scales_the_images_where_asked(tmp_path: Path) -> None:
    victims = [{"model": "python:audit_networks:wide", "resize": 16}]
    found = findings(run(parse_spec(PLAIN | {"victims": victims}), tmp_path)).transfer
    assert found is not None and {r.way for r in found.results} == {"transfer"}
    assert max(r.success.value for r in found.results) > 0.2


def test_a_victim_with_the_weights_of_the_source_is_no_transfer_even_if_it_scales_its_images() -> None:
    scaled = {"model": "python:audit_networks:pooling", "resize": 16}
    victims = [{**scaled, "label": "scaled"}, {**scaled, **BITS, "label": "scaled, bits"}, LINEAR]
    cells = plan(parse_spec(PLAIN | {"sources": ["python:audit_networks:pooling"], "victims": victims}))
    ways = {(cell.about["victim"], cell.about["way"]) for cell in cells if cell.kind == "transfer"}
    assert {("scaled", "white-box"), ("scaled, bits", "around"), ("linear", "transfer")} <= ways


def test_an_ensemble_is_a_source_and_its_members_are_no_transfer(tmp_path: Path) -> None:
    spec = PLAIN | {
        "sources": [{"ensemble": [LINEAR, NARROW], "label": "both"}],
        "victims": [NARROW, "python:audit_networks:saturated"],
    }
    cells = plan(parse_spec(spec | {"shard_size": 40}))
    ways = {cell.about["victim"]: cell.about["way"] for cell in cells if cell.kind == "transfer"}
    assert ways == {"narrow": "white-box", "saturated": "transfer"}
    run(parse_spec(spec | {"data": {"uri": "digits:", "n": 20}}), tmp_path)


def test_the_models_of_an_ensemble_have_weights() -> None:
    def planned(**changes: Any) -> set[str]:
        source = {"ensemble": [LINEAR, NARROW], "label": "both", **changes}
        cells = plan(parse_spec(PLAIN | {"sources": [source], "victims": [NARROW]}))
        return {cell.key for cell in cells if cell.kind == "surrogate"}

    assert planned(weights=[2, 1]) != planned(weights=[1, 2])
    with pytest.raises(SpecError, match="weights.*2 numbers"):
        planned(weights=[1.0])
    with pytest.raises(SpecError, match="weights.*an ensemble"):
        parse_spec(PLAIN | {"sources": [{"model": LINEAR, "weights": [1.0]}]})
        plan(parse_spec(PLAIN | {"sources": [{"model": LINEAR, "weights": [1.0]}]}))
