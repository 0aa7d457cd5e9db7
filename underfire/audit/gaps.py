"""The prediction-interpretation gap of a run: one for every interpreter and norm (see `underfire.measures.gap`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underfire.audit.aims import MAP_KEPT, aim_of, aims_at
from underfire.audit.reading import Source
from underfire.measures.gap import areas, gap_interval, likeness
from underfire.measures.statistics import ratio_difference
from underfire.records import Interval


@dataclass(frozen=True)
class Gap:
    """The gap between the prediction and the maps of one interpreter under the attacks of a run, in one norm.

    For every image that is classified correctly before, and at every size, the most successful attack counts: the one
    that changes the class and keeps most of the map. A stronger attack can only make the gap larger.

    Attributes:
        interpreter: the interpreter.
        norm: the norm of the sizes.
        sizes: the sizes, ascending: those at which an attack was aimed at the map; without one, those of all attacks.
        aimed: the labels of the attacks that were aimed at this map; empty if there is none.
        value: the gap; `n` counts the images that were fooled.
        plain: the same ratio with the maps that plain attacks keep, which try to keep none.
        fooled: share of the images whose class an attack of at most this size changed, for every size.
        kept: mean likeness of the maps of these images to the clean maps, for every size; nan if there are none.
    """

    interpreter: str
    norm: str
    sizes: tuple[float, ...]
    aimed: tuple[str, ...]
    value: Interval
    plain: Interval
    fooled: tuple[float, ...]
    kept: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """The results of every image over the sizes, from which the gap of one interpreter in one norm is computed.

    Attributes:
        interpreter: the interpreter.
        norm: the norm of the sizes.
        sizes: the sizes, ascending.
        aimed: the labels of the attacks that were aimed at this map.
        ids: the names of the images that were classified correctly before, `[B]`.
        won: whether an attack of at most this size changed the class, 0 or 1, `[K, B]`.
        iou: the largest IoU of the maps of these attacks with the clean map, `[K, B]`; nan where it is unknown.
        plain: the same for plain attacks alone, `[K, B]`.
    """

    interpreter: str
    norm: str
    sizes: tuple[float, ...]
    aimed: tuple[str, ...]
    ids: tuple[str, ...]
    won: Tensor
    iou: Tensor
    plain: Tensor

    def areas(self, *, plain: bool = False) -> tuple[Tensor, Tensor]:
        """Return the area of success times likeness, with `plain` of plain attacks, and that of success, `[B]` each."""
        return areas(self.won > 0, self.plain if plain else self.iou, torch.tensor(self.sizes, dtype=torch.float64))


_IMAGES = """
SELECT interpreter, norm, eps, id, bool_or(changed) AS fooled,
       max(iou) FILTER (changed AND NOT isnan(iou)) AS best,
       max(iou) FILTER (changed AND NOT isnan(iou) AND attacked = '') AS plain
FROM (
    SELECT m.interpreter, m.norm, m.eps, id, m.attacked, m.map_iou AS iou,
           r.pred_adv <> r.y AND r.within_eps AND r.in_box AS changed
    FROM maps AS m JOIN rows AS r USING (cell, label, seed, id, eps) WHERE r.pred_clean = r.y AND m.eps > 0
)
GROUP BY interpreter, norm, eps, id ORDER BY interpreter, norm, eps, id
"""


def gaps(source: Source) -> list[Gap]:
    """Return the gap of every interpreter in every norm: those with an aimed attack first, the largest gap first."""
    found = map(_gap, curves(source))
    return sorted(found, key=lambda gap: (not gap.aimed, -np.nan_to_num(gap.value.value)))


def curves(source: Source) -> list[Curves]:
    """Return the curves of every interpreter in every norm."""
    if not source.sql("SELECT 1 AS one FROM maps LIMIT 1"):
        return []
    query = (
        "SELECT DISTINCT interpreter, norm, attack, attacked, label, eps FROM maps WHERE eps > 0 ORDER BY label, eps"
    )
    aims: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for row in source.sql(query):
        if aims_at(row["attacked"], row["interpreter"]) and aim_of(row["attack"], row["attacked"]) == MAP_KEPT:
            aims.setdefault((row["interpreter"], row["norm"]), []).append((row["label"], row["eps"]))
    return [
        _curves(interpreter, norm, list(rows), aims.get((interpreter, norm), []))
        for (interpreter, norm), rows in _grouped(source)
    ]


def gap_difference(after: Curves | None, before: Curves | None) -> Interval:
    """Return the gap of one run minus that of another on the same images, by resampling images with both areas."""
    first, second = _by_image(after, before)
    return ratio_difference(first, second)


def _by_image(*runs: Curves | None) -> Iterator[tuple[list[float], list[float]]]:
    """Yield for every run both areas of every image of all runs; 0 where an image has none, or an unknown one."""
    known: list[dict[str, tuple[float, float]]] = []
    for run in runs:
        kept, won = (area.tolist() for area in run.areas()) if run else ([], [])
        found = zip(run.ids if run else (), kept, won, strict=True)
        known.append({name: (k, w) for name, k, w in found if not np.isnan(k)})
    names = sorted({name for own in known for name in own})
    for own in known:
        pairs = [own.get(name, (0.0, 0.0)) for name in names]
        yield [kept for kept, _ in pairs], [won for _, won in pairs]


def _grouped(source: Source) -> Iterator[tuple[tuple[str, str], Iterator[Mapping[str, Any]]]]:
    return groupby(source.sql(_IMAGES), key=lambda row: (row["interpreter"], row["norm"]))


def _curves(interpreter: str, norm: str, rows: list[Mapping[str, Any]], aims: list[tuple[str, float]]) -> Curves:
    """Return the curves of one interpreter in one norm.

    Args:
        interpreter: the interpreter.
        norm: the norm.
        rows: a row for every size and image, as of the query `_IMAGES`.
        aims: the label and the size of every attack that is aimed at the map.
    """
    every = sorted({row["eps"] for row in rows})
    sizes = sorted({eps for _, eps in aims}) or every
    # tables [K, B] of the images that have a result at every size; smaller sizes than those of the gap count, too
    table = {(row["eps"], row["id"]): row for row in rows}
    ids = [name for name in sorted({row["id"] for row in rows}) if all((eps, name) in table for eps in every)]
    found = [[table[eps, name] for name in ids] for eps in every]
    fooled = _table([[row["fooled"] for row in line] for line in found])
    best = _table([[_kept(row["best"], unknown=row["fooled"]) for row in line] for line in found])
    plain = _table([[_kept(row["plain"]) for row in line] for line in found])
    at = [every.index(eps) for eps in sizes]
    won, iou, other = (t.cummax(0).values[at] for t in (fooled, best, plain))
    aimed = tuple(dict.fromkeys(label for label, _ in aims))
    return Curves(interpreter, norm, tuple(sizes), aimed, tuple(ids), won, iou, other)


def _gap(found: Curves) -> Gap:
    """Return the gap of one interpreter in one norm, and its curve over the sizes."""
    kept, wins = found.areas()
    usual, _ = found.areas(plain=True)
    known = ~kept.isnan()
    value, plain = gap_interval(kept, wins), gap_interval(usual[known], wins[known])
    fooled = tuple(found.won[:, known].mean(1).tolist())
    pairs = zip(found.iou, found.won, strict=True)
    means = tuple(likeness(iou[known & (won > 0)]).mean().item() for iou, won in pairs)
    return Gap(found.interpreter, found.norm, found.sizes, found.aimed, value, plain, fooled, means)


def _kept(iou: float | None, *, unknown: bool = False) -> float:
    """Return an IoU; where there is none, nan if it is unknown, and otherwise 0, because no attack keeps the map."""
    return iou if iou is not None else np.nan if unknown else 0.0


def _table(values: list[list[Any]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(len(values), -1)
