"""The gap at the head of the page and the transfer matrix, from numbers made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from underfire.audit import gap_words
from underfire.audit.gaps import Gap
from underfire.audit.interpreter_transfer import InterpreterTransfer
from underfire.audit.standing import FIRM, Standing
from underfire.audit.summary import Findings
from underfire.records import Interval
from underfire.report import gaps


def interval(value: float, n: int = 50) -> Interval:
    return Interval(value, value - 0.05, value + 0.05, n)


def gap(value: float, *, n: int = 50, aimed: tuple[str, ...] = ("ADV² on CAM",), sizes: int = 3) -> Gap:
    eps = (2 / 255, 4 / 255, 8 / 255)[-sizes:]
    return Gap("cam", "linf", eps, aimed, interval(value, n), interval(0.1, n), (0.5,) * sizes, (value,) * sizes)


def findings(*found: Gap, standing: Standing = FIRM) -> Findings:
    return Findings(None, (), (), (), (), (), (), 0, "", standing=standing, gaps=found)


@pytest.mark.parametrize(
    ("value", "tone", "says"),
    [(0.9, "bad", "almost nothing"), (0.6, "bad", "seldom"), (0.3, "warn", "often"), (0.1, "good", "moves with")],
)
def test_a_gap_has_a_number_a_tone_and_a_meaning(value: float, tone: str, says: str) -> None:
    head = gaps.head(findings(gap(value)))
    assert (head.value, head.tone) == (f"{value:.2f}", tone)
    assert says in head.meaning and f"{100 * value:.0f}\u00a0% of its cam map" in head.meaning
    assert f"{value - 0.05:.2f}–{value + 0.05:.2f}" in head.figure and "2/255 to 8/255" in head.figure
    assert head.meter


def test_what_is_shown_where_nobody_tried_and_where_one_size_was_tried() -> None:
    head = gaps.head(findings(gap(0.6, aimed=())))
    assert (head.value, head.tone) == ("0.60", "none") and "No attack was aimed at this map" in head.meaning
    assert "8/255 only" in gaps.head(findings(gap(0.6, sizes=1))).figure
    assert gaps.head(findings(gap(0.9, n=5))).tone == "none"  # too few images for a verdict


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (findings(), "Not measured"),
        (findings(gap(math.nan, n=0)), "no attack changed the class"),
        (findings(gap(0.9), standing=Standing("nothing", "Nothing can be said: right on 0 of 12")), "right on 0 of 12"),
    ],
)
def test_a_gap_that_is_not_known_is_no_number(found: Findings, says: str) -> None:
    head = gaps.head(found)
    assert (head.value, head.tone, head.figure) == ("", "none", "") and says in head.meaning
    line = gap_words.line(next(iter(found.gaps), None), found.standing)
    assert says in line and "nan" not in line


def test_no_green_gap_in_a_run_that_is_not_firm() -> None:
    assert gaps.head(findings(gap(0.1), standing=Standing("open", "", ("1 of 8 checks warns.",)))).tone == "warn"


def row(label: str, source: str, target: str, l1: float, success: float = 0.9) -> InterpreterTransfer:
    return InterpreterTransfer(
        label, "linf", 0.03, source, target, interval(success), 0.95, interval(l1), None, interval(0.5)
    )


def test_a_cell_is_as_dark_as_the_map_is_closer_than_after_a_plain_attack() -> None:
    plain = [row("PGD", "", "cam", 0.2), row("PGD", "", "grad", 0.1), row("FGSM", "", "cam", 0.9, success=0.5)]
    found = [
        *plain,
        row("A", "cam", "cam", 0.04),
        row("A", "cam", "grad", 0.1),
        row("B", "grad", "cam", 0.15),
        row("B", "grad", "grad", 0.06),
    ]
    targets, rows = gaps.matrix(found)
    assert targets == ["cam", "grad"]
    heat = {shown.label: [cell.heat for cell in cells] for shown, cells in rows}
    assert heat == {"PGD": [0, 0], "FGSM": [0, 0], "A": [4, 0], "B": [1, 2]}
    assert [cell.shown is None for cell in dict(zip(heat, (cells for _, cells in rows), strict=True))["FGSM"]] == [
        False,
        True,
    ]
    assert [(name, [t.label for t in block]) for name, block in gaps.against_plain(found)] == [
        ("cam", ["PGD", "FGSM", "A"]),
        ("grad", ["PGD", "B"]),
    ]
    without = [replace(t, norm="l2") if not t.source else t for t in found]
    assert all(cell.heat == 0 for _, cells in gaps.matrix(without)[1] for cell in cells)
