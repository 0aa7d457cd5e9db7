"""The summary of findings made by hand: every number on it is known."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import pytest

from underfire.audit.gaps import Gap
from underfire.audit.map_shifts import MapShift
from underfire.audit.reading import AttackResult
from underfire.audit.schema import GateSpec
from underfire.audit.spec import parse_spec
from underfire.audit.standing import Standing
from underfire.audit.summary import Findings
from underfire.cli.gates import Gate, Limits, exit_code, lines, outcomes, parse
from underfire.cli.summary import print_summary
from underfire.errors import InputError
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
    return Findings(
        **{
            **empty,
            "clean": None,
            "missing": 0,
            "verdict": "All is said.",
            "standing": SOUND,
            "answered": False,
            **changes,
        }
    )  # type: ignore[arg-type]


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


SOUND = Standing("firm")


def gate(measure: str, at_least: float, **keys: str) -> Gate:
    return Gate(measure, GateSpec.model_validate({"measure": measure, "at_least": at_least, **keys}))


UNSURE = Standing("partial", reasons=("The run is not finished: 2 of 9 cells have no result.",))


def test_gates_compare_estimates_or_the_ends_of_intervals() -> None:
    found = findings(clean=HALF, attacks=(result(0.1, 0.3),), shifts=(shift("cam", "", HALF, UNKNOWN),))
    gates = [
        gate("clean_accuracy", 0.5),
        gate("worst_accuracy", 0.1),
        gate("robust_accuracy", 0.31, attack="pgd linf"),
        gate("map_iou", 0.1, attack="pgd linf", interpreter="cam"),
    ]
    by_estimate = outcomes(found, gates)
    assert [result.state for result in by_estimate] == ["held", "unknown", "missed", "unknown"]
    assert by_estimate[0].value == 0.5
    by_end = outcomes(found, gates, confident=True)
    assert [result.state for result in by_end] == ["missed", "unknown", "missed", "unknown"]
    assert (by_end[0].value, by_end[2].value) == (0.4, 0.15)
    assert by_end[0].compared in lines(by_end, SOUND)[0]


@pytest.mark.parametrize(
    ("standing", "limit", "state", "code"),
    [
        (SOUND, 0.5, "held", 0),
        (SOUND, 0.6, "missed", 1),
        (Standing("open"), 0.5, "held", 0),
        (UNSURE, 0.5, "unsure", 3),
        (UNSURE, 0.6, "missed", 3),
        (Standing("blind", "These numbers cannot be believed"), 0.5, "unsure", 3),
        (Standing("nothing", "Nothing can be said"), 0.0, "unsure", 3),
    ],
)
def test_a_gate_holds_only_on_a_finished_run_that_can_be_believed(
    standing: Standing, limit: float, state: str, code: int
) -> None:
    results = outcomes(findings(clean=HALF, standing=standing), [gate("clean_accuracy", limit)])
    assert [result.state for result in results] == [state]
    assert exit_code(results, standing) == code
    assert exit_code([], standing) == (3 if code == 3 else 0)  # without a gate
    assert bool(lines(results, standing)) == bool(code)
    assert bool(lines([], standing)) == (code == 3)


def test_what_is_missing_is_said_where_no_gate_can_hold() -> None:
    results = outcomes(findings(clean=HALF, standing=UNSURE), [gate("clean_accuracy", 0.1)])
    assert lines(results, UNSURE) == [f"no gate holds: {UNSURE.reasons[0]}"]


def test_an_accuracy_by_definition_holds_no_gate() -> None:
    (found,) = outcomes(findings(clean=HALF, answered=True), [gate("clean_accuracy", 0.1)])
    assert found.state == "unknown"


RUN = parse_spec(
    {
        "model": "zoo:x",
        "data": "digits:",
        "attacks": [{"name": "pgd", "label": "a/b", "eps": ["8/255", 0.1]}, {"name": "pgd", "norm": "l2", "eps": 0.5}],
        "interpreters": [{"name": "cam", "label": "cup, mug"}],
    }
)


@pytest.mark.parametrize(
    ("flag", "text", "keys"),
    [
        ("under", "clean_accuracy=0.5", {"measure": "clean_accuracy"}),
        ("under", "robust_accuracy=0.5", {"measure": "worst_accuracy"}),
        ("under", "worst_accuracy/linf/8/255=0.5", {"measure": "worst_accuracy", "norm": "linf", "eps": 8 / 255}),
        ("under", "robust_accuracy/a/b=0.5", {"measure": "robust_accuracy", "attack": "a/b"}),
        ("under", "robust_accuracy/a/b/0.1=0.5", {"measure": "robust_accuracy", "attack": "a/b", "eps": 0.1}),
        (
            "under",
            "map_iou/pgd l2/cup, mug=0.5",
            {"measure": "map_iou", "attack": "pgd l2", "interpreter": "cup, mug"},
        ),
        ("over", "interpretation_gap=0.5", {"measure": "interpretation_gap"}),
        ("over", "interpretation_gap/cup, mug=0.5", {"measure": "interpretation_gap", "interpreter": "cup, mug"}),
    ],
)
def test_a_gate_of_the_command_line_is_one_of_a_spec(flag: str, text: str, keys: dict[str, Any]) -> None:
    limits = ((text,), ()) if flag == "under" else ((), (text,))
    (found,) = parse(limits, RUN)
    limit = "at_least" if flag == "under" else "at_most"
    assert found.spec == GateSpec.model_validate({**keys, limit: 0.5}) and found.name == text.rpartition("=")[0]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((("interpretation_gap=0.5",), ()), "use --fail-over"),
        (((), ("clean_accuracy=0.5",)), "use --fail-under"),
        (((), ("interpretation_gap",)), "--fail-over must be NAME=VALUE"),
        (((), ("interpretation_gap=50",)), "0.5?"),
        ((("robust_accuracy/a/b/0.2=0.5",), ()), "no figure"),
        (((), ("interpretation_gap/cup=0.5",)), "no figure"),
    ],
)
def test_a_gate_that_no_run_has_is_one_line(limits: Limits, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(limits, RUN)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_largest_gap_is_compared() -> None:
    none = Interval(math.nan, math.nan, math.nan, 0)
    gap = Gap("cam", "linf", (0.1,), ("ADV²",), Interval(0.4, 0.3, 0.6, 20), none, (0.9,), (0.5,))
    gaps = (gap, replace(gap, interpreter="gradient", value=Interval(0.7, 0.6, 0.8, 20)), replace(gap, aimed=()))
    for limit, state in ((0.7, "held"), (0.69, "missed")):
        spec = GateSpec.model_validate({"measure": "interpretation_gap", "at_most": limit})
        (result,) = outcomes(findings(gaps=gaps, standing=SOUND), [Gate("interpretation_gap", spec)])
        assert (result.state, result.value, result.name) == (state, 0.7, "interpretation_gap")
