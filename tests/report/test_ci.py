"""JUnit XML and SARIF: gates as test cases, findings as results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from underfire.audit.gates import GateResult
from underfire.audit.ledger import Ledger
from underfire.audit.standing import Standing
from underfire.audit.summary import findings
from underfire.report import junit, sarif
from underfire.report.findings import findings as sentences

pytestmark = pytest.mark.slow

HELD = GateResult("clean accuracy", 0.9, 0.5, False, "held")
MISSED = GateResult("robust \x0baccuracy <pgd>", 0.1, 0.5, True, "missed")
LEVELS = {
    "bad": ("error", "fail"),
    "warn": ("warning", "fail"),
    "good": ("none", "pass"),
    "none": ("none", "informational"),
}
UNKNOWN = GateResult("map iou", None, 0.5, False, "unknown")
GAP = GateResult("interpretation gap L∞ cam", 0.7, None, False, "missed", at_most=0.5)


@pytest.fixture(scope="module")
def ledger(synthetic: Callable[..., Ledger]) -> Ledger:
    return synthetic()


def cases(text: str) -> dict[str, list[str]]:
    """What every test case contains, by its name."""
    suite = ElementTree.fromstring(text)[0]
    return {str(case.get("name")): [part.tag for part in case] for case in suite}


def test_gates_are_test_cases(ledger: Ledger) -> None:
    found = replace(findings(ledger), standing=Standing("firm"))
    text = junit(ledger, found, [HELD, MISSED, UNKNOWN])
    outcomes = cases(text)
    assert list(outcomes.values()) == [[], [], ["failure"], ["error"]]
    assert "<pgd> is at least 0.5" in list(outcomes)[2]
    assert cases(junit(ledger, found, [GAP]))["interpretation gap L∞ cam is at most 0.5"] == ["failure"]
    assert "needs at most 0.5" in sarif(ledger, found, [GAP])
    suite = ElementTree.fromstring(text)[0]
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["4", "1", "1"]


@pytest.mark.parametrize("level", ["nothing", "blind", "partial"])
def test_a_run_that_cannot_be_believed_is_an_error(ledger: Ledger, level: Any) -> None:
    found = replace(findings(ledger), standing=Standing(level, "Nothing can be said", ("right on 0 of 12",)))
    text = junit(ledger, found, [replace(HELD, state="unsure")])
    assert list(cases(text).values()) == [["error"], ["error"]]
    assert "Nothing can be said. right on 0 of 12." in text  # two sentences
    log = json.loads(sarif(ledger, found, []))
    assert not any(result["kind"] == "pass" for result in log["runs"][0]["results"] if result["ruleId"] == "finding")
    assert "right on 0 of 12" in json.dumps(log)


def test_findings_are_results_of_sarif(ledger: Ledger) -> None:
    found = replace(findings(ledger), standing=Standing("firm"))
    log = json.loads(sarif(ledger, found, [HELD, MISSED]))
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "underfire"
    wanted = sentences(found)
    results = [result for result in run["results"] if result["ruleId"] == "finding"]
    assert len(results) == len(wanted)
    for result, finding in zip(results, wanted, strict=True):
        assert finding.words in result["message"]["text"]
        assert (result["level"], result["kind"]) == LEVELS[finding.tone]
    assert {result["ruleId"] for result in run["results"]} <= rules
    gates = [result["level"] for result in run["results"] if result["ruleId"] == "gate"]
    assert gates == ["none", "error"]
    assert all(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"])
