"""Print the results of an audit on one screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table

from underfire.cli.shared import OUT

if TYPE_CHECKING:
    from underfire.audit.map_shifts import MapShift
    from underfire.audit.quadrants import Quadrants
    from underfire.audit.summary import Findings
    from underfire.audit.transfer import Transfer
    from underfire.records import Interval
    from underfire.report.transfers import Table as Matrix


def print_summary(found: Findings) -> None:
    """Print the gap, the verdict, the robust accuracies, the map distances, the transfer and the masking checks."""
    if found.gap:
        OUT.print(found.gap, style="bold")
    OUT.print(found.verdict, style="bold")
    if found.attacks:
        OUT.print("\nRobust accuracy, each attack at its largest size, with 95 % intervals", style="bold")
        OUT.print(_attacks(found))
    if found.shifts:
        OUT.print("\nMaps before and after, mean L1 / IoU (*: the attack is aimed at this map)", style="bold")
        OUT.print(_maps(found))
    if found.detections:
        stated = 100 * found.detections[0].stated
        text = f"Images that an attack gets past model and detector, at {stated:g} % false positives / AUROC"
        OUT.print(f"\n{text}", style="bold")
        OUT.print(_detections(found))
    if found.transfer:
        sample = found.transfer.sample
        OUT.print(f"\nFooled images of {sample.n} that all models get right, in per cent (*: white-box)", style="bold")
        for part in _transfer(found.transfer):
            OUT.print(part)
        for defense in found.transfer.defenses:
            OUT.print(f"  {defense.sentence}")
    aimed = [q for q in found.quadrants if q.aimed_here]  # the page has the other maps, too
    if aimed:
        OUT.print(f"\nQuadrants, in per cent; a map is kept with an IoU of at least {aimed[0].iou}", style="bold")
        OUT.print(_quadrants(aimed))
    failed = [check for check in found.checks if not check.passed]
    if found.checks:
        OUT.print(f"\nMasking checks: {len(found.checks) - len(failed)} of {len(found.checks)} passed")
    for check in failed:
        OUT.print(f"  WARNING {check.name}: {check.detail}")
    if found.missing:
        OUT.print(f"{found.missing} cells have no result yet; run the audit again to continue")


def _percent(rate: Interval) -> str:
    if math.isnan(rate.value):
        return "unknown"
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _table() -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("attack", overflow="fold")
    return table


def _attacks(found: Findings) -> Table:
    """Return the table of robust accuracies and success rates, each attack at its largest size."""
    from underfire.audit.aims import aims_at_prediction
    from underfire.audit.reading import largest
    from underfire.audit.sizes import norm, size

    table = _table()
    for column in ("norm", "eps", "accuracy", "success"):
        table.add_column(column, justify="right" if column == "eps" else "left")
    if found.clean is not None:
        table.add_row("none", "", "0", _percent(found.clean), "")
    for result in largest(hit for hit in found.attacks if aims_at_prediction(hit.quadrant)):
        sizes = result.label, norm(result.norm), size(result.norm, result.eps)
        table.add_row(*sizes, _percent(result.robust), _percent(result.success))
    return table


def _maps(found: Findings) -> Table:
    """Return the table of the effects of the attacks on the maps of each interpreter."""
    from underfire.audit.reading import largest

    shifts = largest(found.shifts)
    table = _table()
    names = list(dict.fromkeys(shift.interpreter for shift in shifts))
    for name in names:
        table.add_column(name, overflow="fold")
    cells = {(shift.label, shift.interpreter): shift for shift in shifts}
    for label in dict.fromkeys(shift.label for shift in shifts):
        table.add_row(label, *(_distances(cells.get((label, name))) for name in names))
    return table


def _detections(found: Findings) -> Table:
    """Return the table of detection rates and AUROC, each attack at its largest size, those that know it first."""
    from underfire.audit.reading import largest

    table, names = _table(), list(dict.fromkeys(d.detector for d in found.detections))
    cells: dict[str, dict[str, str]] = {}
    for name in names:
        table.add_column(name, overflow="fold")
        own = [d for d in found.detections if d.detector == name]
        for d in [*largest(d for d in own if d.aware), *largest(d for d in own if not d.aware)]:
            area = "unknown" if math.isnan(d.auroc.value) else f"{d.auroc.value:.2f}"
            title = f"{d.label}, knowing the detector" if d.aware else d.label
            cells.setdefault(title, {})[name] = f"{_percent(d.attainable)} / {area}"
    for label, row in cells.items():
        table.add_row(label, *(row.get(name, "") for name in names))
    return table


def _transfer(found: Transfer) -> list[Table | str]:
    """Return the matrix of the attacks on every source and the victims, each attack at its largest size.

    If the names of the victims are too wide for the terminal, numbers stand for them, which a line explains.
    """
    from underfire.report.transfers import table as matrix

    shown = matrix(found)
    table = _matrix(shown, shown.victims)
    if Measurement.get(OUT, OUT.options.update(width=10_000), table).maximum <= OUT.width:
        return [table]
    numbers = [str(i) for i in range(1, len(shown.victims) + 1)]
    legend = ", ".join(f"({number}) {victim}" for number, victim in zip(numbers, shown.victims, strict=True))
    return [f"Victims: {legend}", _matrix(shown, [f"({number})" for number in numbers])]


def _matrix(shown: Matrix, victims: Sequence[str]) -> Table:
    """Return the matrix as a table for the terminal, with these names of its victims."""
    table = _table()
    table.add_column("source", overflow="fold")
    for name in (*victims, "mean"):
        table.add_column(name, overflow="fold", justify="right")
    for row in shown.rows:
        rates = (f"{100 * c.shown.success.value:.0f}{'*' * bool(c.mark)}" if c.shown else "" for c in row.cells)
        table.add_row(row.label, row.source, *rates, f"{100 * row.mean.success.value:.0f}" if row.mean else "")
    return table


def _quadrants(aimed: Sequence[Quadrants]) -> Table:
    """Return the table of the quadrants of prediction and map, each attack on a map at its largest size."""
    from underfire.audit.aims import QUADRANTS
    from underfire.audit.reading import largest

    table = _table()
    for column in ("map", "aims at", *QUADRANTS):
        table.add_column(column, overflow="fold")
    for q in largest(aimed):
        table.add_row(q.label, q.interpreter, q.aim, *(f"{100 * q.shares[name].value:.0f}" for name in QUADRANTS))
    return table


def _distances(shift: MapShift | None) -> str:
    if shift is None:
        return ""
    text = " / ".join("unknown" if math.isnan(mean.value) else f"{mean.value:.2f}" for mean in (shift.l1, shift.iou))
    return f"{text} *" if shift.aimed_here else text
