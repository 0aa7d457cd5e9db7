"""Reports for programs: the numbers of the report as plain values for JSON, and the tables of the ledger as CSV."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire import __version__
from underfire.audit import summary
from underfire.audit.ledger import TABLES
from underfire.report import verdict
from underfire.report.facts import facts
from underfire.report.files import atomic_write

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger


def to_json(ledger: Ledger) -> dict[str, Any]:
    """Return all numbers of the report as plain values.

    A rate is `{value, low, high, n}`, and a number that is not finite is None.
    """
    found, run = summary.findings(ledger), facts(ledger)
    judged = verdict.judge(found)
    content = {
        "underfire": __version__,
        "headline": judged.headline,
        "answers": {card.question: card.answer for card in judged.cards},
        **asdict(found),
        "planned": run.planned,
        "findings": [asdict(f) | {"severity": f.severity} for f in verdict.findings(found)],
        "spec": ledger.spec.model_dump(mode="json"),
        "environment": ledger.environment,
    }
    return {key: _finite(value) for key, value in content.items()}


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(ledger: Ledger, path: str | os.PathLike[str]) -> list[Path]:
    """Write every table of the ledger as `NAME.csv` into the folder `path`, or `rows` alone if `path` ends in `.csv`.

    Returns:
        The files, each of which is written whole or not at all.

    Raises:
        InputError: a file cannot be written.
    """
    from pyarrow.csv import write_csv

    path = Path(path)
    places = {"rows": path} if path.suffix == ".csv" else {name: path / f"{name}.csv" for name in TABLES}
    for name, place in places.items():
        with atomic_write(place) as part:
            write_csv(ledger.table(name), part)
    return list(places.values())
