"""Gates on figures whose values are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from underfire.audit.gaps import Gap
from underfire.audit.gates import GateResult, judge
from underfire.audit.schema import GateSpec
from underfire.audit.standing import FIRM, Standing
from underfire.records import Interval

NONE = Interval(math.nan, math.nan, math.nan, 0)
GAP = Gap("cam", "linf", (0.1,), ("ADV²",), Interval(0.4, 0.3, 0.6, 20), NONE, (0.9,), (0.5,))
OTHER = replace(GAP, norm="l2", value=Interval(0.9, 0.8, 1.0, 20))


def outcome(*gaps: Gap, standing: Standing = FIRM, **keys: object) -> GateResult:
    gate = {"measure": "interpretation_gap", "norm": "linf", "interpreter": "cam", "at_most": 0.5, **keys}
    return judge(GateSpec.model_validate(gate), standing, None, [], [], [], gaps)


def test_a_gap_is_at_most_its_limit() -> None:
    held = outcome(OTHER, GAP)
    assert (held.value, held.state, held.limit, held.compared) == (0.4, "held", "at most 0.5", "estimate")
    assert held.name == "interpretation gap L∞ cam"
    assert outcome(GAP, at_most=0.4).passed
    assert outcome(GAP, at_most="99/255").state == "missed"
    missed = outcome(GAP, confident=True)
    assert (missed.value, missed.state, missed.compared) == (0.6, "missed", "upper end of the 95 % interval")
    assert outcome(GAP, standing=Standing("partial", "unfinished")).state == "unsure"


@pytest.mark.parametrize("gap", [OTHER, replace(GAP, aimed=()), replace(GAP, value=NONE), None])
def test_a_gap_that_no_attack_was_aimed_at_is_unknown(gap: Gap | None) -> None:
    found = outcome(*[gap] if gap else [])
    assert (found.value, found.state, found.passed) == (None, "unknown", False)


def test_a_gate_on_an_attack_without_a_result_has_its_size_in_grey_levels() -> None:
    gate = GateSpec(measure="robust_accuracy", attack="PGD", eps=8 / 255, at_least=0.5)
    found = judge(gate, FIRM, None, [], [], [], [], norms={"PGD": "linf"})
    assert (found.name, found.state) == ("robust accuracy PGD eps 8/255", "unknown")
