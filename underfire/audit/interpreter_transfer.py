"""Transfer between interpreters: the effect of an attack on the map of one interpreter on the maps of the others.

The protocol is that of Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, table 9: distances
between the map of the class that the attack reaches and the clean map, over the images that the attack fools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from underfire.audit.aims import MAP_KEPT, aim_of
from underfire.audit.reading import AttackResult, Source, mean
from underfire.records import Interval


@dataclass(frozen=True)
class InterpreterTransfer:
    """The maps of one interpreter after one attack at one size, over the images that the attack fools.

    Attributes:
        label: the label of the attack.
        norm: the norm of the attack.
        eps: the size of the attack.
        source: the interpreters that the attack is aimed at (`aims.joined`); empty for a plain attack.
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


def interpreter_transfers(source: Source, attacks: Sequence[AttackResult]) -> list[InterpreterTransfer]:
    """Return the transfer of every attack that is aimed at an interpreter, at its largest size, to every interpreter.

    Plain attacks of the same norm and size come first, for reference. Without an aimed attack the list is empty.
    """
    query = """
    SELECT label, source, target, norm, eps, list(l1 ORDER BY id) AS l1, list(l2 ORDER BY id) AS l2,
           list(iou ORDER BY id) AS iou
    FROM interpreter_transfer GROUP BY ALL ORDER BY source, norm, label, eps, target
    """
    outcomes = {(a.label, a.norm, a.eps): a for a in attacks}
    rows = [row for row in source.sql(query) if _shown(row, outcomes)]
    # the sizes at which attacks are aimed at maps: the largest of each attack
    top: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["source"]:
            key = row["norm"], row["label"]
            top[key] = max(row["eps"], top.get(key, 0.0))
    places = {(norm, eps) for (norm, _), eps in top.items()}
    # those attacks, and the plain ones of the same norms and sizes
    found = []
    for row in rows:
        label, norm, eps = place = row["label"], row["norm"], row["eps"]
        if top[norm, label] == eps if row["source"] else (norm, eps) in places:
            l1, l2, iou = (np.array(row[name], dtype=float) for name in ("l1", "l2", "iou"))
            second = None if np.isnan(l2).all() else mean(l2)
            outcome = outcomes[place]
            found.append(
                InterpreterTransfer(
                    *place,
                    source=row["source"],
                    target=row["target"],
                    success=outcome.success,
                    confidence=outcome.confidence,
                    l1=mean(l1),
                    l2=second,
                    iou=mean(iou),
                )
            )
    return found


def _shown(row: Mapping[str, Any], outcomes: Mapping[tuple[str, str, float], AttackResult]) -> bool:
    """Return whether a row of `interpreter_transfer` is of a plain attack, or of one that wants to keep a map."""
    outcome = outcomes.get((row["label"], row["norm"], row["eps"]))
    return outcome is not None and aim_of(outcome.attack, row["source"]) in ("prediction changed", MAP_KEPT)
