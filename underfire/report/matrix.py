"""The overview of the page: every attack at every size, with its success and its effect on the map of each interpreter.

The command line prints the same figures, each attack at its largest size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.audit.aims import aims_at_prediction
from underfire.audit.map_shifts import MapShift
from underfire.audit.reading import AttackResult, largest
from underfire.audit.summary import Findings
from underfire.records import Interval
from underfire.report import words

_HEAT = (0.2, 0.4, 0.6, 0.8)  # the rates at which the colour changes


@dataclass(frozen=True)
class Cell:
    """One figure with its colour: from 0 to 4, how high the rate is; `shift` is None where there is no map."""

    shift: MapShift | None
    heat: int


@dataclass(frozen=True)
class Row:
    """One attack at one size.

    Attributes:
        hit: the attack and its success.
        threat: its norm and its size, in words.
        heat: from 0 to 4, how high its success is.
        left: the accuracy that it leaves; None if it wants to keep the prediction.
        largest: whether this is its largest size.
        cells: the maps of the interpreters, in the order of the columns.
    """

    hit: AttackResult
    threat: str
    heat: int
    left: Interval | None
    largest: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """The overview: its interpreters and its rows, those of the norm with the most attacks first."""

    interpreters: tuple[str, ...]
    rows: tuple[Row, ...]


def matrix(found: Findings, norms: Sequence[str]) -> Matrix:
    """Return the overview of a run; `norms` states the order of the norms that attack the prediction."""
    names = tuple(dict.fromkeys(shift.interpreter for shift in found.shifts))
    shifts = {(s.label, s.norm, s.eps, s.interpreter): s for s in found.shifts}
    order = {norm: i for i, norm in enumerate(norms)}
    top = {(hit.label, hit.eps) for hit in largest(found.attacks)}
    hits = sorted(found.attacks, key=lambda hit: (order.get(hit.norm, len(order)), hit.norm, hit.label, hit.eps))
    rows = [
        Row(
            hit,
            words.threat(hit.norm, hit.eps),
            _heat(hit.success),
            hit.robust if aims_at_prediction(hit.quadrant) else None,
            (hit.label, hit.eps) in top,
            tuple(_cell(shifts.get((hit.label, hit.norm, hit.eps, name))) for name in names),
        )
        for hit in hits
    ]
    return Matrix(names, tuple(rows))


def _cell(shift: MapShift | None) -> Cell:
    return Cell(shift, _heat(shift.plausible) if shift else 0)


def _heat(rate: Interval) -> int:
    return sum(rate.value >= share for share in _HEAT)
