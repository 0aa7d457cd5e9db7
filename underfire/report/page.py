"""The report as one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from underfire import __version__
from underfire.audit.aims import QUADRANTS, aims_at_prediction
from underfire.audit.comparison import PAIRS
from underfire.audit.detection import RATES
from underfire.audit.gap_words import place
from underfire.audit.gates import GateResult
from underfire.audit.map_shifts import PLAUSIBLE_IOU, MapShift
from underfire.audit.reading import AttackResult, Measured, largest
from underfire.audit.summary import Findings
from underfire.audit.summary import findings as read
from underfire.files import as_path, atomic_write
from underfire.records import Interval
from underfire.report import answers, checks, detection, gallery, gaps, measures, plots, transfers, verdict, words
from underfire.report.facts import facts
from underfire.report.findings import findings, groups
from underfire.report.headings import permalinks
from underfire.report.matrix import matrix
from underfire.report.methods import by_label, methods
from underfire.report.pictures import gradient

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger

_SECTIONS = (
    ("overview", "Overview"),
    ("findings", "Findings"),
    ("accuracy", "Accuracy"),
    ("gap", "Gap"),
    ("gallery", "Gallery"),
    ("explanations", "Explanations"),
    ("transfer", "Transfer"),
    ("detection", "Detection"),
    ("checks", "Checks"),
    ("gates", "Gates"),
    ("methods", "Methods"),
    ("spec", "Spec"),
    ("environment", "Environment"),
)
#: The sections on attacks on the model itself, which a run that only shows attacks on other models to victims lacks.
_OWN = ("overview", "findings", "accuracy", "gap", "gallery", "explanations")
_TOGETHER = "all attacks together"


def _template(name: str) -> str:
    return files("underfire.report").joinpath("templates", name).read_text(encoding="utf-8")


def _joined(*names: str) -> Markup:
    """Return the text of several templates, which is part of the page as it is."""
    return Markup("".join(map(_template, names)))


@cache
def _engine() -> Environment:
    """Return the template engine with the filters of the page; it compiles each template once."""
    engine = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters.update(
        percent=words.percent,
        interval=words.format_interval,
        range=words.format_range,
        plain=words.plain,
        short=words.short,
        seconds=words.seconds,
        isnan=words.unknown,
        signed=words.signed,
    )
    engine.globals.update(threat=words.threat, size=words.size, gap_place=place, zip=zip)
    return engine


def render(ledger: Ledger) -> str:
    """Return the report page of a run as HTML text."""
    found, run = read(ledger), facts(ledger)
    against = [hit for hit in found.attacks if aims_at_prediction(hit.quadrant)]
    shown = gallery.gallery(ledger, found, run.labels)
    styles = {label: i % plots.STYLES for i, label in enumerate(dict.fromkeys(h.label for h in found.attacks))}
    columns = max((len(s.columns) for s in shown.samples), default=0)
    rows = max((len(s.rows) for s in shown.samples), default=1)
    used, norms = methods(ledger.spec), _order(against)
    targets, transfer_rows = gaps.matrix(found.interpreter_transfers)
    optional = {"gates": found.gates, "detection": found.detections, "transfer": found.transfer, "methods": used}
    absent = {name for name, content in optional.items() if not content}
    attacked = bool(found.attacks) or not (found.transfer and found.transfer.best)
    absent |= set() if attacked else set(_OWN)
    page = (
        _engine()
        .get_template("report.html")
        .render(
            version=__version__,
            style=_joined("report.css", "gallery.css", "print.css"),
            script=_joined("report.js", "gallery.js", "copy.js"),
            run=run,
            verdict=verdict.judge(found),
            attacked=attacked,
            groups=groups(findings(found)),
            failed_gates=_failed(found),
            matrix=matrix(found, norms),
            methods=used,
            methods_by_label=by_label(used),
            pictured={column.name for sample in shown.samples[:1] for column in sample.columns},
            head=gaps.head(found),
            gaps=[(gap, gaps.meter(gap, 100)) for gap in found.gaps],
            against=gaps.against_plain(found.interpreter_transfers),
            targets=targets,
            transfer_rows=transfer_rows,
            bounds=gaps.bounds(found.shifts),
            panels=[_panel(norm, against, found, styles) for norm in norms],
            attacks=largest(found.attacks),
            gallery=shown,
            scales={"sequential": gradient(signed=False), "diverging": gradient(signed=True)},
            columns=columns,
            picture=128 if columns < 4 else 96,  # pixels: two samples side by side on a wide page
            printed=min(18 if columns < 4 else 14, max(10, 78 // rows)),  # millimetres: two below each other
            maps=[
                _maps(name, found, measures.columns(ledger.spec, "maps"))
                for name in dict.fromkeys(s.interpreter for s in found.shifts)
            ],
            kept=PLAUSIBLE_IOU,
            pairs=PAIRS,
            quadrants=largest(found.quadrants),
            quadrant_names=QUADRANTS,
            map_columns=measures.columns(ledger.spec, "maps"),
            row_columns=measures.columns(ledger.spec, "rows"),
            checks=found.checks,
            check_rows=checks.rows(found.checks),
            refused=found.refused,
            passed=answers.capped("good", found.standing),
            gates=found.gates,
            detections=detection.panels(ledger, found, styles),
            compared=detection.compared(found.detector_differences),
            rates=[f"{100 * at:g}" for at in RATES],
            transfer=found.transfer,
            transfer_refused=found.transfer and transfers.not_run(found.transfer),
            transfer_table=found.transfer and transfers.table(found.transfer),
            sections=[s for s in _SECTIONS if s[0] not in absent],
        )
    )
    return permalinks(plots.distinct(page))


def html(ledger: Ledger, path: str | os.PathLike[str]) -> Path:
    """Write the report of a run as one self-contained HTML file, whole or not at all, and return its path.

    Raises:
        LedgerError: the run folder is damaged.
        InputError: the file cannot be written.
    """
    path = as_path(path)
    text = render(ledger)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _panel(norm: str, attacks: Sequence[AttackResult], found: Findings, styles: Mapping[str, int]) -> dict[str, Any]:
    """Return the values of the template for one norm: the robust accuracies of its attacks as a plot and a table."""
    hits = [h for h in attacks if h.norm == norm]
    labels = list(dict.fromkeys(h.label for h in hits))
    rates = {label: {h.eps: h.robust for h in hits if h.label == label} for label in labels}
    if len(labels) > 1:
        rates[_TOGETHER] = {f.eps: f.robust for f in found.robust if f.norm == norm}
    start = {0.0: found.clean} if found.clean else {}
    # An attack with one size has no line from eps 0: it would suggest results at sizes that were not tried.
    lone = {name for name, curve in rates.items() if len(curve) == 1 and len(rates) > 1 and name != _TOGETHER}
    end = {name: curve[max(curve)] for name, curve in rates.items()}
    sizes = sorted({h.eps for h in hits} - set(start))
    return {
        "title": f"{words.norm(norm)} attacks",
        "chart": plots.curves(
            [
                (styles.get(name, plots.WORST), curve if name in lone else {**curve, **start})
                for name, curve in rates.items()
            ],
            (f"eps ({words.unit(norm)})", "robust accuracy, %"),
            lambda eps: words.size(norm, eps),
            f"Line chart of robust accuracy against eps in {words.norm(norm)}. At the largest eps: "
            + "; ".join(f"{name} {words.percent(i.value)}" for name, i in end.items())
            + ". All values are in the table beside it.",
            ["all together" if name == _TOGETHER else name for name in rates] if len(rates) > 1 else (),
        ),
        "clean": found.clean,
        "several": len(rates) > 1,
        "alone": len(lone),
        "columns": [f"eps {words.size(norm, eps)}" for eps in sizes],
        "rows": [
            {
                "key": plots.key(styles.get(name, plots.WORST), name in lone),
                "name": name,
                "cells": [curve.get(eps) for eps in sizes],
                "n": end[name].n,
                "total": name == _TOGETHER,
            }
            for name, curve in rates.items()
        ],
    }


def _failed(found: Findings) -> list[tuple[str, str, list[GateResult]]]:
    """Return the gates that do not hold, in groups: the colour, what happened in words, and the gates."""
    states = {
        "missed": ("bad", "missed"),
        "unknown": ("warn", "without a result"),
        "unsure": ("warn", "within the limit, but this run cannot be used"),
    }
    result = [(*said, [gate for gate in found.gates if gate.state == state]) for state, said in states.items()]
    return [group for group in result if group[2]]


def _order(hits: Sequence[AttackResult]) -> list[str]:
    """Return the norms, that with the most attacks first."""
    labels = {(h.norm, h.label) for h in hits}
    return sorted({h.norm for h in hits}, key=lambda norm: (-sum(norm == n for n, _ in labels), norm))


def _maps(interpreter: str, found: Findings, columns: Sequence[measures.Column]) -> dict[str, Any]:
    """Return the values of the template for one interpreter: every attack at its largest size, and the differences."""
    shifts = largest(s for s in found.shifts if s.interpreter == interpreter)
    shifts.sort(key=lambda s: (not s.aimed_here, s.norm != "linf", s.label))
    top = {s.label: s.eps for s in shifts}
    # A measure that is unknown for every attack, for example because the data has no masks, gets no column.
    known = [c for c in columns if any(c.label in s.measures and s.measures[c.label].value.n for s in shifts)]
    most = max(shifts, key=lambda s: (s.plausible.n > 0, s.plausible.value))
    told = f"{len(shifts)} attack{'s' * (len(shifts) != 1)}"
    if most.plausible.n:
        told += f"; the map hides {most.label} most often, in {words.percent(most.plausible.value)} of the images"
    return {
        "interpreter": interpreter,
        "told": told,
        "columns": known,
        "rows": [(s, [_measured(s, column) for column in known], _meter(s.plausible)) for s in shifts],
        "differences": [d for d in found.differences if d.interpreter == interpreter and d.eps == top[d.label]],
    }


def _measured(shift: MapShift, column: measures.Column) -> tuple[Measured | None, Markup]:
    """Return a measure of the maps, with a drawing if it compares two maps on a scale from 0 to 1."""
    measured = shift.measures.get(column.label)
    drawn = measured is not None and measured.clean is None and column.unit_range
    return measured, _meter(measured.value) if measured and drawn else Markup()


def _meter(i: Interval) -> Markup:
    return plots.meter(i.value, i.low, i.high)
