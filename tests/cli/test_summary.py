"""The summary of findings made by hand: every number on it is known."""

from __future__ import annotations

import dataclasses
import math

import pytest

from underfire.audit.reading import AttackResult, MapShift
from underfire.audit.summary import Findings
from underfire.cli.gates import Gate, failures
from underfire.cli.summary import print_summary
from underfire.records import Check, Interval

HALF = Interval(0.5, 0.4, 0.6, 100)
UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)


def result(eps: float, robust: float) -> AttackResult:
    known = {"label": "pgd linf", "attack": "pgd", "norm": "linf", "eps": eps}
    known |= {"robust": Interval(robust, robust / 2, 1.0, 100), "success": HALF}
    return AttackResult(**{field.name: known.get(field.name) for field in dataclasses.fields(AttackResult)})  # type: ignore[arg-type]


def shift(interpreter: str, attacked: str, l1: Interval, iou: Interval) -> MapShift:
    known = {"label": "pgd linf", "norm": "linf", "eps": 0.1, "interpreter": interpreter, "attacked": attacked}
    known |= {"l1": l1, "iou": iou}
    return MapShift(**{field.name: known.get(field.name) for field in dataclasses.fields(MapShift)})  # type: ignore[arg-type]


def findings(**changes: object) -> Findings:
    empty = {field.name: () for field in dataclasses.fields(Findings)}
    return Findings(**{**empty, "clean": None, "missing": 0, "verdict": "All is said.", **changes})  # type: ignore[arg-type]


def test_the_largest_size_of_each_attack_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    checks = (Check("more_steps", False, 0.1, 0.0, "80 steps fool more."), Check("restarts", True, 0.0, 0.1, ""))
    maps = (shift("cam", "cam", HALF, HALF), shift("gradient", "cam", UNKNOWN, HALF))
    print_summary(
        findings(clean=HALF, attacks=(result(0.2, 0.1), result(0.1, 0.3)), shifts=maps, checks=checks, missing=3)
    )
    text = capsys.readouterr().out
    assert text.startswith("All is said.\n")
    assert "50.0 % [40.0, 60.0]" in text and "10.0 % [5.0, 100.0]" in text and "30.0 %" not in text
    assert "0.50 / 0.50 *" in text and "unknown / 0.50" in text
    assert "Masking checks: 1 of 2 passed\n  WARNING more_steps: 80 steps fool more.\n" in text
    assert "3 cells have no result yet" in text


def test_an_empty_run_has_its_verdict_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(findings())
    assert capsys.readouterr().out == "All is said.\n"


def test_an_unknown_figure_misses_its_gate() -> None:
    found = findings(clean=HALF, attacks=(result(0.1, 0.3),), shifts=(shift("cam", "", HALF, UNKNOWN),))
    gates = [
        Gate("clean_accuracy", 0.5),
        Gate("robust_accuracy", 0.1),
        Gate("robust_accuracy/pgd linf", 0.31),
        Gate("map_iou/pgd linf/cam", 0.1),
    ]
    assert failures(found, gates) == [
        "robust_accuracy is unknown, under 0.1",
        "robust_accuracy/pgd linf is 0.3, under 0.31",
        "map_iou/pgd linf/cam is unknown, under 0.1",
    ]
