"""The prediction-interpretation gap on the page: the figure at its head, and its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from underfire.audit import gap_words
from underfire.audit.aims import aims_only_at
from underfire.audit.binding import BOUND, CHANGE
from underfire.audit.comparison import PAIRS
from underfire.audit.gaps import Gap
from underfire.audit.interpreter_transfer import InterpreterTransfer
from underfire.audit.map_shifts import MapShift
from underfire.audit.reading import Measured, largest
from underfire.audit.standing import Standing
from underfire.audit.summary import Findings
from underfire.report import plots, words
from underfire.report.answers import capped

_BAD, _WARN = 0.5, 0.2
_HEAT = (0.9, 0.7, 0.5, 0.25)  # the shares of the distance after a plain attack at which the colour changes


@dataclass(frozen=True)
class Head:
    """The gap at the head of the page.

    Attributes:
        tone: the colour.
        value: the number; empty if there is none.
        figure: its interval and its place.
        meaning: one sentence that says what it means, or why there is none.
        others: the gaps of the other interpreters, in words.
        meter: the number on a scale.
    """

    tone: str
    value: str
    figure: str
    meaning: str
    others: str
    meter: Markup


def head(found: Findings) -> Head:
    """Return the largest gap of a run for the head of its page."""
    gap, standing = next(iter(found.gaps), None), found.standing
    meaning = gap_words.meaning(gap, standing)
    if gap is None or not gap_words.known(gap, standing):
        return Head("none", "", "", meaning, "", Markup())
    where = f"{gap.interpreter}, {gap_words.place(gap)}"
    figure = f"95\u00a0% interval {_interval(gap)}, n\u00a0=\u00a0{gap.value.n}; {where}."
    aimed = ", ".join(
        f"{other.interpreter} ({words.norm(other.norm)}) {other.value.value:.2f}"
        for other in found.gaps[1:]
        if other.aimed and other.value.n
    )
    others = f"Other maps that were attacked: {aimed}." if aimed else ""
    return Head(tone(gap, standing), f"{gap.value.value:.2f}", figure, meaning, others, meter(gap))


def tone(gap: Gap, standing: Standing) -> str:
    """Return the tone of a gap: bad from 0.5, warn from 0.2; none if few images were fooled or nobody tried."""
    if not gap.aimed or gap.value.n < PAIRS:
        return "none"
    value = gap.value.value
    return capped("bad" if value >= _BAD else "warn" if value >= _WARN else "good", standing)


def _interval(gap: Gap) -> str:
    return "unknown" if math.isnan(gap.value.low) else f"{gap.value.low:.2f}–{gap.value.high:.2f}"


def meter(gap: Gap, length: int = 260) -> Markup:
    """Return the gap on a scale from 0 to 1; the upright line is the gap that plain attacks leave."""
    return plots.meter(gap.value.value, gap.value.low, gap.value.high, gap.plain.value, length=length)


@dataclass(frozen=True)
class Cell:
    """One place of the transfer matrix.

    Attributes:
        shown: the maps; None if there are none.
        heat: from 0 to 4, how much closer to the clean map they are than after a plain attack.
    """

    shown: InterpreterTransfer | None
    heat: int


def matrix(found: Sequence[InterpreterTransfer]) -> tuple[list[str], list[tuple[InterpreterTransfer, list[Cell]]]]:
    """Return the targets, and for every attack its cells in the order of the targets; plain attacks come first."""
    targets = list(dict.fromkeys(t.target for t in found))
    strongest_last = sorted((t for t in found if not t.source), key=lambda t: t.success.value)
    plain = {(t.norm, t.eps, t.target): t.l1.value for t in strongest_last}
    rows: dict[tuple[str, str, float], dict[str, InterpreterTransfer]] = {}
    for t in found:
        rows.setdefault((t.label, t.norm, t.eps), {})[t.target] = t
    return targets, [
        (next(iter(row.values())), [_cell(row.get(target), plain) for target in targets]) for row in rows.values()
    ]


def _cell(shown: InterpreterTransfer | None, plain: dict[tuple[str, float, str], float]) -> Cell:
    reference = math.nan if shown is None else plain.get((shown.norm, shown.eps, shown.target), math.nan)
    if shown is None or not shown.source or not reference > 0:
        return Cell(shown, 0)
    return Cell(shown, sum(shown.l1.value < share * reference for share in _HEAT))


def against_plain(found: Sequence[InterpreterTransfer]) -> list[tuple[str, list[InterpreterTransfer]]]:
    """Return for every attacked interpreter the attacks aimed at it and the plain attacks of the same norm and size."""
    names = dict.fromkeys(t.target for t in found if aims_only_at(t.source, t.target))
    blocks = []
    for name in names:
        aimed = [t for t in found if aims_only_at(t.source, name) and t.target == name]
        places = {(t.norm, t.eps) for t in aimed}
        plain = [t for t in found if not t.source and t.target == name and (t.norm, t.eps) in places]
        blocks.append((name, plain + aimed))
    return [(name, rows) for name, rows in blocks if rows]


def bounds(shifts: Sequence[MapShift]) -> list[tuple[MapShift, Measured, Measured]]:
    """Return for every attack at its largest size the change of every complete map, and the least possible change."""
    return [(s, s.measures[CHANGE], s.measures[BOUND]) for s in largest(shifts) if BOUND in s.measures]
