"""Reports for programs: the numbers of the report as plain values for JSON, and the tables of the ledger as CSV."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire import __version__
from underfire.audit import summary
from underfire.audit.ledger import TABLES
from underfire.files import as_path, atomic_write
from underfire.report import findings, verdict
from underfire.report.facts import facts

if TYPE_CHECKING:
    import pyarrow as pa

    from underfire.audit.ledger import Ledger

_FORMULA = r"^([=+\-@\t\r])"


def to_json(ledger: Ledger) -> dict[str, Any]:
    """Return all numbers of the report as plain values.

    A rate is `{value, low, high, n}`, and a number that is not finite is None.
    """
    found, run = summary.findings(ledger), facts(ledger)
    judged = verdict.judge(found)
    content = {
        "underfire": __version__,
        "headline": judged.headline,
        "gap": found.gap,
        "answers": {card.question: card.answer for card in judged.cards},
        **asdict(found),
        "planned": run.planned,
        "findings": [asdict(f) | {"severity": f.severity} for f in findings.findings(found)],
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

    A text that a spreadsheet would run as a formula, because it begins with `=`, `+`, `-` or `@`, gets a `'` before it.

    Returns:
        The files, each of which is written whole or not at all.

    Raises:
        InputError: a file cannot be written.
    """
    from pyarrow.csv import write_csv

    path = as_path(path)
    places = {"rows": path} if path.suffix == ".csv" else {name: path / f"{name}.csv" for name in TABLES}
    for name, place in places.items():
        with atomic_write(place) as part:
            write_csv(_without_formulas(ledger.table(name)), part)
    return list(places.values())


def _without_formulas(table: pa.Table) -> pa.Table:
    """Return a table whose texts, and names of columns, no spreadsheet takes for a formula."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts = pc.replace_substring_regex(table.column(i).cast(kind), pattern=_FORMULA, replacement=r"'\1")
            table = table.set_column(i, pa.field(field.name, kind), texts)
    return table.rename_columns([re.sub(_FORMULA, r"'\1", name) for name in table.column_names])
