"""The quadrant of prediction and explanation into which the samples of a run fall after each attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from underfire.audit.aims import MAP_CHANGED, QUADRANTS, aim_of, aims_at, aims_only_at
from underfire.audit.map_shifts import PLAUSIBLE_IOU
from underfire.audit.reading import Source
from underfire.measures.statistics import clopper_pearson
from underfire.records import Interval


@dataclass(frozen=True)
class Quadrants:
    """The quadrants into which one attack at one size moves the samples, for the maps of one interpreter.

    A prediction has changed if it is not that of the clean image, and a map if its IoU with the clean map is below
    `underfire.audit.map_shifts.PLAUSIBLE_IOU`. The samples are those that are classified correctly before the attack,
    with a perturbation within the limits of the attack, and with maps that are not constant. With several seeds, a
    sample counts in the quadrant that the attack aims at if any seed reaches it, and otherwise in that of the first
    seed.

    Attributes:
        label: the label of the attack.
        norm: its norm.
        eps: its size.
        interpreter: the interpreter whose maps are compared.
        attacked: the interpreters that the attack was aimed at (`aims.joined`); empty if none.
        aim: the quadrant that the attack aims at; `"prediction changed"` if it is not aimed at a map.
        shares: the share of the samples in each of `QUADRANTS`, with its Clopper-Pearson interval.
        iou: the smallest IoU at which a map counts as kept.
    """

    label: str
    norm: str
    eps: float
    interpreter: str
    attacked: str
    aim: str
    shares: dict[str, Interval]
    iou: float = PLAUSIBLE_IOU

    @property
    def reached(self) -> Interval | None:
        """The share of the samples in the quadrant that the attack aims at; None if it is not aimed at this map."""
        return self.shares.get(self.aim) if aims_at(self.attacked, self.interpreter) else None

    @property
    def aimed_here(self) -> bool:
        """Return whether the attack was aimed at this map alone."""
        return aims_only_at(self.attacked, self.interpreter)

    @property
    def changes_map(self) -> bool:
        """Return whether the attack was aimed at this map, to change it and to keep the prediction."""
        return aims_at(self.attacked, self.interpreter) and self.aim == MAP_CHANGED


def control_of(one: Quadrants, found: Sequence[Quadrants]) -> Quadrants | None:
    """Return the quadrants after random noise of the same norm and size, for the same maps; None if there is none.

    Of several controls, the one after which most maps changed is taken.
    """
    place = one.norm, one.eps, one.interpreter
    controls = [q for q in found if q.aim == "both kept" and (q.norm, q.eps, q.interpreter) == place]
    return max(controls, key=lambda q: q.shares[MAP_CHANGED].value, default=None)


_SAMPLES = f"""
SELECT m.interpreter, m.label, m.norm, m.eps, m.id, any_value(m.attack) AS attack, any_value(m.attacked) AS attacked,
       list([(r.pred_adv <> r.pred_clean)::INT, (m.map_iou < {PLAUSIBLE_IOU})::INT] ORDER BY m.seed) AS places
FROM maps AS m JOIN rows AS r USING (cell, label, seed, id, eps)
WHERE r.pred_clean = r.y AND r.within_eps AND r.in_box AND NOT isnan(m.map_iou) AND m.eps > 0
GROUP BY m.interpreter, m.label, m.norm, m.eps, m.id ORDER BY ALL
"""
_NAMES = {(1, 0): QUADRANTS[0], (1, 1): QUADRANTS[1], (0, 1): QUADRANTS[2], (0, 0): QUADRANTS[3]}


def quadrants(source: Source) -> list[Quadrants]:
    """Return the quadrants of every attack at every size above 0 and every interpreter, in this order."""
    if not source.sql("SELECT 1 AS one FROM maps LIMIT 1"):
        return []
    found = []
    rows = source.sql(_SAMPLES)
    for place, group in groupby(rows, key=lambda row: tuple(row[k] for k in ("interpreter", "label", "norm", "eps"))):
        samples = list(group)
        aim = aim_of(samples[0]["attack"], samples[0]["attacked"])
        reached = [[_NAMES[changed, moved] for changed, moved in row["places"]] for row in samples]
        fell = [aim if aim in names else names[0] for names in reached]
        shares = {name: clopper_pearson(fell.count(name), len(fell)) for name in QUADRANTS}
        interpreter, label, norm, eps = place
        found.append(Quadrants(label, norm, eps, interpreter, samples[0]["attacked"], aim, shares))
    return found
