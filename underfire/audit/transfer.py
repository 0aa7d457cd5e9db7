"""Transfer between interpreters: what an attack that keeps the map of one interpreter does to the maps of another.

The protocol is that of Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, table 9: distances
between the map of the class that the attack reaches and the clean map, over the images that the attack fools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from underfire.audit.reading import AttackResult, Source, mean
from underfire.records import Interval


@dataclass(frozen=True)
class Transfer:
    """The maps of one interpreter after one attack at one size, over the images that the attack fools.

    Attributes:
        label: the label of the attack.
        norm: the norm of the attack.
        eps: the size of the attack.
        source: the interpreter that the attack is aimed at; empty for a plain attack.
        target: the interpreter whose maps are compared with the clean ones.
        success: share of the images classified correctly before that the attack fools.
        confidence: mean probability of the reached class over the fooled images; nan if there is none.
        l1: mean L1 distance per pixel of the min-max normalised maps.
        l2: mean root mean square difference of the normalised maps; None if the spec does not have `map_l2`.
        iou: mean IoU of the largest pixels.
    """

    label: str
    norm: str
    eps: float
    source: str
    target: str
    success: Interval
    confidence: float
    l1: Interval
    l2: Interval | None
    iou: Interval


def transfers(source: Source, attacks: Sequence[AttackResult]) -> list[Transfer]:
    """Return the transfer of every attack that is aimed at an interpreter, at its largest size, to every interpreter.

    Plain attacks of the same norm and size come first, for reference. Without an aimed attack the list is empty.
    """
    query = """
    SELECT label, source, target, norm, eps, list(l1 ORDER BY id) AS l1, list(l2 ORDER BY id) AS l2,
           list(iou ORDER BY id) AS iou
    FROM transfer GROUP BY ALL ORDER BY source, norm, label, eps, target
    """
    rows = source.sql(query)
    top: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["source"]:
            key = row["norm"], row["label"]
            top[key] = max(row["eps"], top.get(key, 0.0))
    places = {(norm, eps) for (norm, _), eps in top.items()}
    outcomes = {(a.label, a.norm, a.eps): a for a in attacks}
    found = []
    for row in rows:
        place = row["label"], row["norm"], row["eps"]
        chosen = top.get(place[1::-1]) == place[2] if row["source"] else place[1:] in places
        if chosen and place in outcomes:
            outcome = outcomes[place]
            l1, l2, iou = (np.array(row[name], dtype=float) for name in ("l1", "l2", "iou"))
            second = None if row["l2"] is None or np.isnan(l2).all() else mean(l2)
            ends = (row["source"], row["target"], outcome.success, outcome.confidence)
            found.append(Transfer(*place, *ends, mean(l1), second, mean(iou)))
    return found
