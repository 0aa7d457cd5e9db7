"""The effect of the attacks of a run on the maps of its interpreters, from the tables of the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from underfire.audit.aims import MAP_KEPT, aim_of, aims_only_at
from underfire.audit.reading import Measured, Source, measure_means
from underfire.measures.statistics import rate
from underfire.records import Interval

PLAUSIBLE_IOU = 0.5
"""The smallest IoU with the clean map at which a map counts as plausible.

It is the threshold of object detection, which Zhang et al. 2020 (ADV²) use: the two maps share at least half of the
area that either of them marks. Many maps reach it after a plain attack, too; see
`underfire.audit.comparison.Difference`.
"""


@dataclass(frozen=True)
class MapShift:
    """The effect of one attack at one size on the maps of one interpreter.

    All values are over the samples that are classified correctly before the attack.

    Attributes:
        attacked: the interpreters that the attack was aimed at (`aims.joined`); empty if none.
        l1: mean L1 distance per pixel between the min-max normalised clean and adversarial maps.
        iou: mean IoU of the largest pixels of the two maps.
        plausible: share of the samples whose class changed while their map stayed plausible (see `PLAUSIBLE_IOU`).
            Plain attacks leave many maps plausible, too: whether a map was forged is a comparison (`Difference`).
        measures: means of the spec's measures of maps, by label.
        quadrant: what the attack wants to change and to keep (see `underfire.catalog.Quadrant`).
    """

    label: str
    norm: str
    eps: float
    interpreter: str
    attacked: str
    l1: Interval
    iou: Interval
    plausible: Interval
    measures: dict[str, Measured]
    quadrant: str = MAP_KEPT

    @property
    def forges(self) -> bool:
        """Return whether the attack was aimed at this map alone, to keep it while the prediction changes."""
        return self.aimed_here and self.quadrant == MAP_KEPT

    @property
    def aimed_here(self) -> bool:
        """Return whether the attack was aimed at this map alone."""
        return aims_only_at(self.attacked, self.interpreter)


MAPS = f"""
SELECT m.interpreter, m.label, m.norm, m.eps, id, any_value(m.attacked) AS attacked,
       any_value(m.attack) AS attack, avg(m.map_l1) AS l1, avg(m.map_iou) AS iou,
       bool_and(r.pred_clean = r.y) AS was_right, bool_and(m.success AND r.pred_clean = r.y) AS always_fooled,
       bool_or(m.success AND r.pred_clean = r.y AND m.map_iou >= {PLAUSIBLE_IOU} AND NOT isnan(m.map_iou)) AS plausible
FROM maps AS m JOIN rows AS r USING (cell, label, seed, id, eps) GROUP BY m.interpreter, m.label, m.norm, m.eps, id
"""
"""A query with one row for every interpreter, attack, size and sample; only for a ledger with interpreters.

`always_fooled` says that the sample is fooled for every seed, and `plausible` that for some seed its map stays so.
"""


def map_shifts(source: Source) -> list[MapShift]:
    """Return the effect of every attack at every size on the maps of every interpreter.

    The results are ordered by interpreter, norm, size and label.
    """
    if not source.sql("SELECT 1 AS one FROM maps LIMIT 1"):
        return []
    query = f"""
    SELECT interpreter, label, norm, eps, any_value(attacked) AS attacked, any_value(attack) AS attack,
           list(plausible) AS plausible
    FROM (SELECT * FROM ({MAPS}) WHERE was_right ORDER BY id)
    GROUP BY interpreter, label, norm, eps ORDER BY interpreter, norm, eps, label
    """
    measured = measure_means(source)
    shifts = []
    for row in source.sql(query):
        place = {key: row[key] for key in ("label", "norm", "eps", "interpreter", "attacked")}
        means = measured[row["label"], row["norm"], row["eps"], row["interpreter"]]
        l1, iou = means["map_l1"].value, means["map_iou"].value
        aim = aim_of(row["attack"], row["attacked"])
        shifts.append(MapShift(**place, l1=l1, iou=iou, plausible=rate(row["plausible"]), measures=means, quadrant=aim))
    return shifts
