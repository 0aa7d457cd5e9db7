"""Reading a ledger: what every attack leaves of the accuracy, and what it does to the explanations.

Pure functions of the ledger's tables. A sample counts once: over several seeds it holds only if it holds for every
seed, and distances are averaged over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from underfire.catalog import cards
from underfire.measures.statistics import bootstrap_mean, clopper_pearson, rate
from underfire.records import Check, Interval

KEPT = 0.5
"""The IoU from which on a map counts as plausible: that of object detection, which Zhang et al. 2020 (ADV²) take over.

At least half of the area that either map marks is then marked by both. Plain attacks reach it too, see `Difference`.
"""


class Source(Protocol):
    """What is needed of a ledger."""

    def sql(self, query: str) -> list[dict[str, Any]]:
        """The rows that a query over the tables `rows`, `maps`, `checks` and `clean` gives."""
        ...


@dataclass(frozen=True)
class Hit:
    """One attack at one size, the worst over its seeds.

    Attributes:
        robust: share of all samples that are classified right, before and after the attack.
        success: share of those classified right before in which the attack got what it wanted, inside its budget.
        confidence: mean probability of the class after a successful attack; nan without one.
        sizes: mean size of the perturbation by norm, in units of the image.
        within: share of the perturbed images inside eps and inside the box.
        cost: mean forward and backward passes and seconds per image.
        atlas: the MITRE ATLAS technique, from the attack's card; empty where that has none.
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


@dataclass(frozen=True)
class Left:
    """The accuracy left under all attacks of one norm and size together, and the attack that takes most of it."""

    norm: str
    eps: float
    robust: Interval
    worst: str


@dataclass(frozen=True)
class Shift:
    """What one attack at one size does to the maps of one interpreter, over the samples classified right before.

    Attributes:
        attacked: the interpreter that the attack was aimed at; empty for none.
        l1: mean distance per pixel of the min-max normalised maps.
        iou: mean overlap of the maps' strongest pixels.
        forged: share of the samples whose class changed while their map stayed plausible (IoU of at least `KEPT`).
        inside: mean share of the map inside the known evidence, before and after; None where that is not known.
    """

    label: str
    norm: str
    eps: float
    interpreter: str
    attacked: str
    l1: Interval
    iou: Interval
    forged: Interval
    inside: tuple[Interval, Interval] | None


def clean_accuracy(source: Source) -> Interval | None:
    """The accuracy without any attack, or None where no cell tells."""
    seen = "(SELECT DISTINCT id, y, pred_clean AS pred FROM rows)"
    for table in ("clean", seen):
        row = source.sql(f"SELECT count(*) FILTER (pred = y) AS k, count(*) AS n FROM {table}")[0]
        if row["n"]:
            return clopper_pearson(row["k"], row["n"])
    return None


_SAMPLES = """
SELECT label, any_value(attack) AS attack, norm, eps, id, bool_or(targeted) AS targeted, count(DISTINCT seed) AS seeds,
       bool_and(pred_clean = y) AS was_right, bool_or(success) AS fooled,
       bool_and(pred_clean = y AND (pred_adv = y OR NOT (within_eps AND in_box))) AS held,
       avg(conf_adv) FILTER (success AND pred_clean = y) AS confidence,
       avg(linf) AS linf, avg(l2) AS l2, avg(l1) AS l1, avg(l0) AS l0, avg((in_box AND within_eps)::INT) AS within,
       avg(forwards) AS forwards, avg(backwards) AS backwards, avg(seconds) AS seconds
FROM rows GROUP BY label, norm, eps, id
"""


def hits(source: Source) -> list[Hit]:
    """Every attack at every size, by norm, label and size."""
    means = ("confidence", "linf", "l2", "l1", "l0", "within", "forwards", "backwards", "seconds")
    query = f"""
    SELECT label, any_value(attack) AS attack, norm, eps, bool_or(targeted) AS targeted, max(seeds) AS seeds,
           count(*) AS n, count(*) FILTER (held) AS held, count(*) FILTER (was_right) AS was_right,
           count(*) FILTER (was_right AND fooled) AS fooled, {", ".join(f"avg({name}) AS {name}" for name in means)}
    FROM ({_SAMPLES}) GROUP BY label, norm, eps ORDER BY norm, label, eps
    """
    atlas = {card.name: card.facts.atlas for card in cards("attack")}
    return [
        Hit(
            **{key: row[key] for key in ("label", "attack", "norm", "eps", "targeted", "seeds")},
            robust=clopper_pearson(row["held"], row["n"]),
            success=clopper_pearson(row["fooled"], row["was_right"]),
            confidence=float("nan") if row["confidence"] is None else row["confidence"],
            sizes={key: row[key] for key in ("linf", "l2", "l1", "l0")},
            within=row["within"],
            cost={key: row[key] for key in ("forwards", "backwards", "seconds")},
            atlas=atlas.get(row["attack"], ""),
        )
        for row in source.sql(query)
    ]


def left(source: Source, found: Iterable[Hit]) -> list[Left]:
    """What all attacks of one norm and size leave together: a sample counts if it withstands every one."""
    query = f"""
    SELECT norm, eps, count(*) FILTER (held) AS held, count(*) AS n
    FROM (SELECT norm, eps, id, bool_and(held) AS held FROM ({_SAMPLES}) GROUP BY norm, eps, id)
    GROUP BY norm, eps ORDER BY norm, eps
    """
    worst: dict[tuple[str, float], Hit] = {}
    for hit in found:
        key = hit.norm, hit.eps
        if key not in worst or hit.robust.value < worst[key].robust.value:
            worst[key] = hit
    return [
        Left(row["norm"], row["eps"], clopper_pearson(row["held"], row["n"]), worst[row["norm"], row["eps"]].label)
        for row in source.sql(query)
    ]


MAPS = f"""
SELECT interpreter, m.label, m.norm, m.eps, id, any_value(attacked) AS attacked, avg(m.l1) AS l1, avg(iou) AS iou,
       bool_and(pred_clean = y) AS was_right, bool_and(m.success AND pred_clean = y) AS surely,
       bool_or(m.success AND pred_clean = y AND iou >= {KEPT} AND NOT isnan(iou)) AS forged,
       avg(localisation_clean) AS before, avg(localisation_adv) AS after
FROM maps AS m JOIN rows USING (cell, id, eps) GROUP BY interpreter, m.label, m.norm, m.eps, id
"""


def shifts(source: Source) -> list[Shift]:
    """What every attack at every size does to every interpreter's maps, by interpreter, norm, size and label."""
    query = f"""
    SELECT interpreter, label, norm, eps, any_value(attacked) AS attacked, list(l1) AS l1, list(iou) AS iou,
           list(forged) AS forged, list(before) AS before, list(after) AS after
    FROM (SELECT * FROM ({MAPS}) WHERE was_right ORDER BY id)
    GROUP BY interpreter, label, norm, eps ORDER BY interpreter, norm, eps, label
    """
    return [_shift(row) for row in source.sql(query)]


def _shift(row: dict[str, Any]) -> Shift:
    before, after = (np.array(row[key], dtype=float) for key in ("before", "after"))
    known = ~np.isnan(before) & ~np.isnan(after)
    return Shift(
        **{key: row[key] for key in ("label", "norm", "eps", "interpreter", "attacked")},
        l1=_mean(row["l1"]),
        iou=_mean(row["iou"]),
        forged=rate(row["forged"]),
        inside=(_mean(before[known]), _mean(after[known])) if known.any() else None,
    )


def _mean(values: Any) -> Interval:
    """The mean of the values that are known."""
    array = np.asarray(values, dtype=float)
    known = array[~np.isnan(array)]
    return bootstrap_mean(known) if len(known) else Interval(np.nan, np.nan, np.nan, 0)


def checks(source: Source) -> list[Check]:
    """The masking checks of the run, failed ones first."""
    found = source.sql('SELECT name, passed, value, "limit", detail FROM checks ORDER BY passed, name')
    return [Check(**row) for row in found]


def largest(found: Iterable[Hit]) -> list[Hit]:
    """Of every attack the one at its largest size."""
    top: dict[str, Hit] = {}
    for hit in found:
        if hit.label not in top or hit.eps > top[hit.label].eps:
            top[hit.label] = hit
    return list(top.values())
