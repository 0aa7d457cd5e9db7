"""Reports for continuous integration: JUnit XML with gates as test cases, and SARIF with findings as results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from underfire import __version__
from underfire.audit.gates import GateResult, sound
from underfire.audit.summary import Findings
from underfire.report.facts import facts
from underfire.report.findings import findings
from underfire.report.words import format_interval, percent

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LEVELS = {"bad": "error", "warn": "warning", "good": "none", "none": "note"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def junit(ledger: Ledger, found: Findings, gates: Sequence[GateResult]) -> str:
    """Return JUnit XML: a test case for the run, which must be finished and believable, and one for each gate.

    A gate that is missed is a failure; a gate whose figure is unknown or cannot be believed is an error.
    """
    standing = found.standing
    reasons = " ".join(f"{reason.rstrip('.')}." for reason in (standing.headline, *standing.reasons) if reason)
    outcome = "" if sound(standing) else "error"
    cases = [("run", "the run is finished and can be believed", outcome, reasons)]
    for gate in gates:
        value = "unknown" if gate.value is None else f"{gate.value:.4g} ({gate.compared})"
        said = "" if gate.passed else "failure" if gate.state == "missed" else "error"
        cases.append(("gates", f"{gate.name} is {gate.limit}", said, f"{gate.name} is {value}"))
    counts = {word: str(sum(case[2] == word for case in cases)) for word in ("failure", "error")}
    root = ElementTree.Element("testsuites", name="underfire")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_clean(facts(ledger).title),
        tests=str(len(cases)),
        failures=counts["failure"],
        errors=counts["error"],
        timestamp=str(ledger.environment.get("started", "")),
    )
    for group, name, outcome, text in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=f"underfire.{group}", name=_clean(name))
        if outcome:
            ElementTree.SubElement(case, outcome, message=_clean(text)).text = _clean(text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """Return a text without the characters that XML cannot contain."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def sarif(ledger: Ledger, found: Findings, gates: Sequence[GateResult]) -> str:
    """Return a SARIF 2.1.0 log: a result for each finding, each masking check that failed, and each gate.

    The location of every result is the ledger of the run, because a model has no lines.
    """
    place = {
        "physicalLocation": {"artifactLocation": {"uri": f"{ledger.path}/ledger.json"}, "region": {"startLine": 1}},
        "logicalLocations": [{"name": ledger.spec.model.uri, "kind": "module"}],
    }
    results: list[dict[str, Any]] = []

    def add(rule: str, level: str, text: str, **properties: Any) -> None:
        kind = {"none": "pass", "note": "informational"}.get(level, "fail")
        level = level if kind == "fail" else "none"
        entry = {"ruleId": rule, "kind": kind, "level": level, "message": {"text": text}, "locations": [place]}
        results.append({**entry, "properties": properties})

    for finding in findings(found):
        rate = finding.rate
        text = f"{finding.words}: {percent(rate.value)} {format_interval(rate)}, n = {rate.n}"
        known = {} if rate.n == 0 else {"value": rate.value, "low": rate.low, "high": rate.high}
        add("finding", _LEVELS[finding.tone], text, n=rate.n, tags=[finding.atlas] if finding.atlas else [], **known)
    for check in found.checks:
        add("masking-check", "none" if check.passed else "warning", f"{check.name}: {check.detail}")
    for gate in gates:
        value = "unknown" if gate.value is None else f"{gate.value:.4g}"
        text = f"{gate.name} is {value}; the gate needs {gate.limit}"
        add("gate", "none" if gate.passed else "error", text)
    if found.standing.headline and not sound(found.standing):
        add("standing", "error", " ".join((f"{found.standing.headline}.", *found.standing.reasons)))
    driver = {"name": "underfire", "version": __version__, "rules": [{"id": rule, **about} for rule, about in _RULES]}
    log = {"version": "2.1.0", "$schema": _SCHEMA, "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


_RULES = [
    (rule, {"shortDescription": {"text": text}})
    for rule, text in (
        ("finding", "What an attack does to the classifier or to its explanation"),
        ("masking-check", "Whether the attacks were strong enough for their results to be believed"),
        ("gate", "A figure that must not be lower than a limit"),
        ("standing", "Why the figures of the run say nothing or cannot be believed"),
    )
]
