"""Transfer on the page: the matrix of sources and victims, and the sentence at the head."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from underfire.audit.reading import largest
from underfire.audit.transfer import Transfer, TransferMean, TransferResult
from underfire.report import words

_HEAT = (0.2, 0.4, 0.6, 0.8)  # the success rates at which the colour changes
THROUGH = "through the victim's own defence"


@dataclass(frozen=True)
class Cell:
    """One place of the matrix.

    Attributes:
        shown: the result; None if there is none.
        heat: from 0 to 4, how high the success rate is.
        mark: `"white-box"` where the attacker used the victim itself; empty elsewhere.
        refused: why the attack could not be run.
    """

    shown: TransferResult | None
    heat: int
    mark: str
    refused: str


@dataclass(frozen=True)
class Row:
    """One attack on one source at its largest size.

    Attributes:
        source: the source, or `THROUGH` for the attacks through the defences of each victim.
        threat: the norm and the size, in words.
        cells: the victims in the order of the columns.
        mean: the mean over the victims that it was not crafted on; None if there are none.
    """

    source: str
    label: str
    threat: str
    cells: tuple[Cell, ...]
    mean: TransferMean | None


@dataclass(frozen=True)
class Table:
    """The matrix: its columns and its rows, and how often random victims are evaluated; 1 if there are none."""

    victims: tuple[str, ...]
    rows: tuple[Row, ...]
    draws: int


def table(found: Transfer) -> Table:
    """Return the matrix of the attacks at their largest sizes."""
    victims = tuple(dict.fromkeys([*(r.victim for r in found.results), *(r.victim for r in found.refused)]))
    means = {(entry.source, entry.label, entry.norm, entry.eps): entry for entry in found.means}
    refused = {(e.source if e.way != "through" else THROUGH, e.label, e.victim): e.reason for e in found.refused}
    top = {(entry.label, entry.norm): entry.eps for entry in largest(found.results)}
    rows: dict[tuple[str, str, str], dict[str, TransferResult]] = {}
    for entry in found.results:
        if "without" not in entry.way and entry.eps == top[entry.label, entry.norm]:
            source = THROUGH if entry.way == "through" else entry.source
            rows.setdefault((source, entry.label, entry.norm), {})[entry.victim] = entry
    ordered = sorted(rows, key=lambda key: key[0] == THROUGH)
    shown = [
        Row(
            source,
            label,
            words.threat(norm, top[label, norm]),
            tuple(_cell(rows[source, label, norm].get(v), refused.get((source, label, v), "")) for v in victims),
            means.get((source, label, norm, top[label, norm])),
        )
        for source, label, norm in ordered
    ]
    return Table(victims, tuple(shown), max((entry.draws for entry in found.results), default=1))


def _cell(shown: TransferResult | None, refused: str) -> Cell:
    if shown is None:
        return Cell(None, 0, "", refused)
    heat = sum(shown.success.value >= share for share in _HEAT)
    return Cell(shown, heat, "white-box" if shown.way in ("white-box", "through") else "", "")


def not_run(found: Transfer) -> list[str]:
    """Return one line for each attack that could not be run, but for those without BPDA, which are expected to fail."""
    lines = [
        f"{entry.label} on {entry.source}: {entry.reason}"
        for entry in found.refused
        if entry.way != "through without BPDA"
    ]
    return list(dict.fromkeys(lines))


def lead(found: Transfer) -> Markup:
    """Return the sentences on transfer for the head of the page; empty if no attack reached another model."""
    best, parts = found.best, list[Markup]()
    if best is not None:
        parts.append(
            Markup(
                "Of the attacks that were not crafted on their victim, {} on {} fools most: <strong>{}</strong> of the "
                "images on average over {}."
            ).format(best.label, best.source, words.percent(best.success.value), _victims(best.victims))
        )
    if hidden := [entry.victim for entry in found.defenses if entry.hides]:
        parts.append(
            Markup("{} {} the gradient.").format(words.listed(hidden), "hides" if len(hidden) == 1 else "hide")
        )
    return Markup(" ").join(parts)


def _victims(count: int) -> str:
    return "the victim" if count == 1 else f"{count} victims"
