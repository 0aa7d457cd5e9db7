"""Figures of a ledger: accuracies under attack, and means of the measures; those of maps are in `audit.map_shifts`.

All functions query the tables of the ledger and change nothing. Each sample counts once: with several seeds, it is
robust only if it is robust for every seed, and its measures are averaged over the seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np

from underfire.audit.aims import aim_of, aims_at_prediction, facts_named
from underfire.measures.statistics import bootstrap_mean, clopper_pearson
from underfire.records import Interval


class Source(Protocol):
    """The part of a ledger that these functions use."""

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of an SQL query over the tables of a ledger."""
        ...


@dataclass(frozen=True)
class Measured:
    """The mean of one measure over samples, with its interval.

    Attributes:
        clean: the mean over the clean samples; None for a measure that compares the clean and the adversarial sample.
        value: the mean over the adversarial samples, or over the comparisons.
    """

    clean: Interval | None
    value: Interval


@dataclass(frozen=True)
class AttackResult:
    """One attack at one size, the worst over its seeds.

    Attributes:
        robust: share of all samples that are classified correctly both before and after the attack.
        success: share of the samples classified correctly before the attack for which the attack succeeded within
            its budget.
        confidence: mean probability of the predicted class over successful attacks; nan if none succeeded.
        sizes: mean size of the perturbation in each norm, in units of the image.
        within: share of the perturbed images that are within eps and within the box.
        cost: mean numbers of forward and backward passes, and mean seconds, per image.
        atlas: the MITRE ATLAS technique on the attack's card; empty if it has none.
        measures: means of the spec's measures of perturbations and predictions, by label.
        quadrant: what the attack wants to change and to keep (see `underfire.catalog.Quadrant`).
    """

    label: str
    attack: str
    norm: str
    eps: float
    targeted: bool
    seeds: int
    robust: Interval
    success: Interval
    confidence: float
    sizes: dict[str, float]
    within: float
    cost: dict[str, float]
    atlas: str
    measures: dict[str, Measured]
    quadrant: str = "prediction changed"


@dataclass(frozen=True)
class RobustAccuracy:
    """The accuracy under all attacks of one norm and size together, and the label of the strongest single attack."""

    norm: str
    eps: float
    robust: Interval
    worst: str


class _Sized(Protocol):
    """A figure of one attack at one size."""

    @property
    def label(self) -> str: ...

    @property
    def eps(self) -> float: ...


Entry = TypeVar("Entry", bound=_Sized)


def clean_accuracy(source: Source) -> Interval | None:
    """Return the accuracy without an attack, or None if there is no result yet."""
    row = source.sql("SELECT count(*) FILTER (pred = y) AS k, count(*) AS n FROM clean")[0]
    return clopper_pearson(row["k"], row["n"]) if row["n"] else None


SAMPLES = """
SELECT label, any_value(attack) AS attack, any_value(attacked) AS attacked, norm, eps, id,
       bool_or(targeted) AS targeted, count(DISTINCT seed) AS seeds,
       bool_and(pred_clean = y) AS was_right, bool_or(success) AS fooled,
       bool_and(pred_clean = y AND (pred_adv = y OR NOT (within_eps AND in_box))) AS held,
       avg(conf_adv) FILTER (success AND pred_clean = y) AS confidence,
       avg(linf) AS linf, avg(l2) AS l2, avg(l1) AS l1, avg(l0) AS l0, avg((in_box AND within_eps)::INT) AS within,
       avg(forwards) AS forwards, avg(backwards) AS backwards, avg(seconds) AS seconds
FROM rows GROUP BY label, norm, eps, id
"""


def attack_results(source: Source) -> list[AttackResult]:
    """Return the results of every attack at every size, ordered by norm, label and size."""
    means = ("confidence", "linf", "l2", "l1", "l0", "within", "forwards", "backwards", "seconds")
    query = f"""
    SELECT label, any_value(attack) AS attack, norm, eps, bool_or(targeted) AS targeted, max(seeds) AS seeds,
           any_value(attacked) AS attacked, count(*) AS n, count(*) FILTER (held) AS held,
           count(*) FILTER (was_right) AS was_right,
           count(*) FILTER (was_right AND fooled) AS fooled, {", ".join(f"avg({name}) AS {name}" for name in means)}
    FROM ({SAMPLES}) GROUP BY label, norm, eps ORDER BY norm, label, eps
    """
    measured = measure_means(source)
    return [
        AttackResult(
            **{key: row[key] for key in ("label", "attack", "norm", "eps", "targeted", "seeds")},
            robust=clopper_pearson(row["held"], row["n"]),
            success=clopper_pearson(row["fooled"], row["was_right"]),
            confidence=float("nan") if row["confidence"] is None else row["confidence"],
            sizes={key: row[key] for key in ("linf", "l2", "l1", "l0")},
            within=row["within"],
            cost={key: row[key] for key in ("forwards", "backwards", "seconds")},
            atlas=facts_named(row["attack"]).atlas,
            measures=measured.get((row["label"], row["norm"], row["eps"], ""), {}),
            quadrant=aim_of(row["attack"], row["attacked"]),
        )
        for row in source.sql(query)
    ]


def robust_accuracies(source: Source, found: Iterable[AttackResult]) -> list[RobustAccuracy]:
    """Return the robust accuracies under all attacks of one norm and size together.

    A sample counts as robust only if it withstands every one of these attacks. Attacks that want to keep the prediction
    are left out.
    """
    against = [result for result in found if aims_at_prediction(result.quadrant)]
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in {result.attack for result in against}) or "''"
    query = f"""
    SELECT norm, eps, count(*) FILTER (held) AS held, count(*) AS n
    FROM (
        SELECT norm, eps, id, bool_and(held) AS held FROM ({SAMPLES}) WHERE attack IN ({names}) GROUP BY norm, eps, id
    )
    GROUP BY norm, eps ORDER BY norm, eps
    """
    worst: dict[tuple[str, float], AttackResult] = {}
    for result in against:
        key = result.norm, result.eps
        if key not in worst or result.robust.value < worst[key].robust.value:
            worst[key] = result
    return [
        RobustAccuracy(
            row["norm"], row["eps"], clopper_pearson(row["held"], row["n"]), worst[row["norm"], row["eps"]].label
        )
        for row in source.sql(query)
    ]


def measure_means(source: Source) -> dict[tuple[str, str, float, str], dict[str, Measured]]:
    """Return the means of all measures over the samples that are classified correctly before the attack.

    The keys are `(label, norm, eps, interpreter)`, with an empty interpreter for measures of perturbations and
    predictions; the values map the label of a measure to its mean.
    """
    query = """
    SELECT label, norm, eps, interpreter, measure, list(clean) AS clean, list(value) AS value
    FROM (
        SELECT m.label, m.norm, m.eps, interpreter, measure, id, avg(clean) AS clean, avg(value) AS value
        FROM measures AS m JOIN rows USING (cell, label, seed, id, eps) WHERE pred_clean = y
        GROUP BY m.label, m.norm, m.eps, interpreter, measure, id ORDER BY id
    )
    GROUP BY ALL ORDER BY ALL
    """
    found: dict[tuple[str, str, float, str], dict[str, Measured]] = {}
    for row in source.sql(query):
        clean, value = (np.array(row[side], dtype=float) for side in ("clean", "value"))
        pair = not np.isnan(clean).all()
        both = ~np.isnan(clean) & ~np.isnan(value) if pair else np.full(len(value), True)
        measured = Measured(mean(clean[both]) if pair else None, mean(value[both]))
        found.setdefault((row["label"], row["norm"], row["eps"], row["interpreter"]), {})[row["measure"]] = measured
    return found


def mean(values: Any) -> Interval:
    """Return the mean of the values that are not nan, with its bootstrap interval."""
    array = np.asarray(values, dtype=float)
    known = array[~np.isnan(array)]
    return _bootstrapped(known.tobytes()) if len(known) else Interval(np.nan, np.nan, np.nan, 0)


@lru_cache(maxsize=512)  # the summary, the page and the files of one run ask for the same means
def _bootstrapped(values: bytes) -> Interval:
    """Return the mean of float64 values with its bootstrap interval."""
    return bootstrap_mean(np.frombuffer(values))


def largest(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entry of the largest size for every attack, or for every attack and interpreter."""
    best: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = entry.label, getattr(entry, "interpreter", "")
        if key not in best or entry.eps > best[key].eps:
            best[key] = entry
    return list(best.values())
