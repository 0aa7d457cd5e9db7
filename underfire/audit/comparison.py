"""Compare attacks aimed at an explanation with plain attacks, image by image, to decide whether a map was forged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from underfire.audit.aims import aims_at_prediction
from underfire.audit.map_shifts import MAPS, PLAUSIBLE_IOU, MapShift
from underfire.audit.reading import Source
from underfire.measures.statistics import paired_difference, rate
from underfire.records import Interval

PAIRS = 6  # the fewest pairs for a significant difference; with fewer, no two-sided sign test reaches 5 %


@dataclass(frozen=True)
class Difference:
    """A paired comparison of an attack aimed at an interpreter with a plain attack of the same norm and size.

    It compares the maps of the samples that both attacks fool, each sample with itself. Many maps stay plausible after
    a plain attack, too; so the difference shows whether maps were forged, but the rate of plausible maps does not.

    Attributes:
        label: the label of the attack aimed at the interpreter.
        baseline: the label of the plain attack.
        norm: the norm of both attacks.
        eps: the size of both attacks.
        interpreter: the interpreter whose maps are compared.
        l1: mean difference of the L1 distances to the clean maps, aimed minus plain; negative where the aimed attack
            leaves the map closer to the clean one.
        iou: mean difference of the IoUs with the clean maps, aimed minus plain; positive where the aimed attack keeps
            more of the map.
        ious: mean IoU after the aimed and after the plain attack.
        plausible: share of plausible maps (see `PLAUSIBLE_IOU`) after the aimed and after the plain attack.
    """

    label: str
    baseline: str
    norm: str
    eps: float
    interpreter: str
    l1: Interval
    iou: Interval
    ious: tuple[float, float]
    plausible: tuple[Interval, Interval]

    @property
    def forged(self) -> bool:
        """Return whether the aimed attack keeps significantly more of the map: the whole interval of `iou` is above 0.

        With fewer than `PAIRS` samples no difference is significant: by chance, all of five samples favour one given
        attack once in 2 ** 5 times.
        """
        return self.iou.n >= PAIRS and self.iou.low > 0


def differences(source: Source, found: Iterable[MapShift]) -> list[Difference]:
    """Compare every attack aimed at an interpreter with every plain attack of the same norm and size, by the maps."""
    found = list(found)
    key = ("norm", "eps", "interpreter")
    plain: dict[tuple[Any, ...], list[MapShift]] = {}
    for shift in found:
        if not shift.attacked and aims_at_prediction(shift.quadrant):
            plain.setdefault(tuple(getattr(shift, k) for k in key), []).append(shift)
    # pair every attack aimed at an interpreter with the plain attacks of the same norm, size and interpreter
    aimed = [shift for shift in found if shift.forges]
    pairs = [(a, b) for a in aimed for b in plain.get(tuple(getattr(a, k) for k in key), [])]
    if not pairs:
        return []
    fooled: dict[tuple[Any, ...], dict[str, Any]] = {}  # the rows of the fooled samples by name, for each attack
    for row in source.sql(MAPS):
        if row["always_fooled"]:
            fooled.setdefault(tuple(row[k] for k in ("label", *key)), {})[row["id"]] = row
    # compare each pair over the samples that both attacks fool
    result = []
    for a, b in pairs:
        place = (a.norm, a.eps, a.interpreter)
        both = [fooled.get((label, *place), {}) for label in (a.label, b.label)]
        ids = sorted(both[0].keys() & both[1].keys())
        sides = [[rows[name] for name in ids] for rows in both]
        l1, iou = (_difference(*([row[measure] for row in side] for side in sides)) for measure in ("l1", "iou"))
        overlaps = np.array([[row["iou"] for row in side] for side in sides], dtype=float)
        overlaps = overlaps[:, ~np.isnan(overlaps).any(0)]
        if overlaps.size:
            ious = float(overlaps[0].mean()), float(overlaps[1].mean())
            plausible = rate(overlaps[0] >= PLAUSIBLE_IOU), rate(overlaps[1] >= PLAUSIBLE_IOU)
            result.append(Difference(a.label, b.label, *place, l1, iou, ious, plausible))
    return result


def leading(found: Iterable[Difference]) -> list[Difference]:
    """Return one difference for every attack and the interpreter it is aimed at, the largest gain in IoU first.

    The comparison is made at the largest size, with the plain attack that shares the most fooled images with the
    aimed one. If several share equally many, the one that keeps most of the map is taken, so that the gain is not
    overstated.
    """
    best: dict[tuple[str, str], Difference] = {}
    for gap in sorted(found, key=lambda d: (d.eps, d.iou.n, -d.iou.value)):
        best[gap.label, gap.interpreter] = gap
    return sorted(best.values(), key=lambda d: (not d.forged, -d.iou.value))


def _difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Return the mean paired difference `a - b` over the pairs without nan."""
    pairs = np.array([a, b], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(0)]
    return paired_difference(*pairs) if pairs.shape[1] else Interval(np.nan, np.nan, np.nan, 0)
