"""The measures of a run as columns of the page: their names, directions and descriptions."""

from __future__ import annotations

from dataclasses import dataclass

from underfire.audit.schema import AuditSpec
from underfire.catalog import find
from underfire.report import words


@dataclass(frozen=True)
class Column:
    """A measure of the spec as a column of the page.

    Attributes:
        label: the label of the measure in the spec.
        name: the label as a heading.
        direction: whether higher or lower values are better for the user of the model.
        unit_range: whether all values are in [0, 1], so that they can be drawn on a scale.
        about: the description of the measure in one sentence.
        source: the paper, in short.
    """

    label: str
    name: str
    direction: str
    unit_range: bool
    about: str
    source: str


def columns(spec: AuditSpec, table: str) -> list[Column]:
    """Return the measures of one table, `"rows"` or `"maps"`, in the order of the spec."""
    found = []
    for entry in spec.measures:
        card = find("measure", entry.name)
        if card.facts.table == table:
            better = "higher is better" if card.facts.higher_is_better else "lower is better"
            # the first line of the docstring, without its shape, as a sentence about the value
            about = card.summary.partition("; nan")[0].replace(", `[B]`", "").replace("`", "").rstrip(".") + "."
            about = about.removeprefix("Return ")
            about = about[:1].upper() + about[1:]
            unit = card.facts.limits == (0.0, 1.0)
            found.append(Column(entry.title, words.heading(entry.title), better, unit, about, card.source))
    return found
