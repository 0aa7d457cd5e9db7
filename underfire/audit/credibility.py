"""Read the facts that decide whether a run can be believed: clean predictions, masking checks and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underfire.audit.reading import Source
from underfire.measures.statistics import clopper_pearson
from underfire.records import Check, Interval


@dataclass(frozen=True)
class Answers:
    """The predictions of the model for the clean samples.

    Attributes:
        classes: number of classes of the model.
        given: number of different classes that the model predicts.
        labels: number of different labels of the samples.
    """

    classes: int
    given: int
    labels: int


@dataclass(frozen=True)
class Rival:
    """An attack without a gradient that a masking check compares with the attack that it checks.

    Attributes:
        name: the name of the attack.
        norm: the norm of the size.
        eps: the largest size of its perturbations.
        success: share of the checked samples, all classified correctly before, that it fools within `eps`.
    """

    name: str
    norm: str
    eps: float
    success: Interval


@dataclass(frozen=True)
class Refusal:
    """A method that could not be run on the model.

    Attributes:
        kind: `"attack"`, `"interpreter"`, `"detector"` or `"measure"`.
        name: the label of the method in the spec.
        reason: why not, in one line.
        cells: number of cells that could not be run.
        of: number of cells of this method in the plan.
    """

    kind: str
    name: str
    reason: str
    cells: int
    of: int


def answers(source: Source, environment: Mapping[str, Any]) -> Answers | None:
    """Return the numbers of classes, of different answers and of different labels; None if there is no result yet.

    A run that does not state the number of classes has at least as many as its answers and labels show.
    """
    query = (
        "SELECT count(DISTINCT pred) AS given, count(DISTINCT y) AS labels, max(greatest(pred, y)) AS top FROM clean"
    )
    row = source.sql(query)[0]
    if row["top"] is None:
        return None
    stated = environment.get("classes") or len(environment.get("labels") or ())
    return Answers(max(stated, row["top"] + 1, 2), row["given"], row["labels"])


def rivals(source: Source) -> list[Rival]:
    """Return the attacks without a gradient that the masking checks ran."""
    query = "SELECT rival, norm, eps, hits, images FROM checks WHERE rival <> '' ORDER BY rival"
    return [Rival(r["rival"], r["norm"], r["eps"], clopper_pearson(r["hits"], r["images"])) for r in source.sql(query)]


def checks(source: Source) -> list[Check]:
    """Return the masking checks of the run, failed ones first."""
    found = source.sql(
        'SELECT name, passed, value, "limit", detail, rival, hits, images FROM checks ORDER BY passed, name'
    )
    return [Check(**row) for row in found]
