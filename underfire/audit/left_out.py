"""Summarise how well supervised detectors see an attack that they have not learned from (leave-one-attack-out)."""

from __future__ import annotations

from underfire.audit.reading import Source
from underfire.measures.detection import auroc, detection_rate, threshold
from underfire.records import Interval

Attack = tuple[str, str, str, float]
"""A detector, and the label, the norm and the size of an attack."""


def if_new(source: Source, false_positive_rate: float) -> dict[Attack, tuple[Interval, Interval]]:
    """Return the detection rate and the AUROC of each attack by the detector that was fitted without it.

    The threshold of that detector is chosen from its own scores of held-out clean images. With several seeds, the
    success with the lowest score counts.
    """
    clean: dict[tuple[str, str, bool], list[float]] = {}
    query = (
        "SELECT detector, left_out, held_out, score FROM clean_scores WHERE left_out <> '' AND (held_out OR was_right)"
    )
    for row in source.sql(query):
        clean.setdefault((row["detector"], row["left_out"], row["held_out"]), []).append(row["score"])
    hits: dict[Attack, list[float]] = {}
    query = """
    SELECT detector, label, norm, eps, min(score) FILTER (success) AS success FROM scores
    WHERE left_out = label AND was_right GROUP BY detector, label, norm, eps, id
    """
    for row in source.sql(query):
        found = hits.setdefault((row["detector"], row["label"], row["norm"], row["eps"]), [])
        found += [] if row["success"] is None else [row["success"]]
    results = {}
    for attack, scores in hits.items():
        usual, held = (clean.get((*attack[:2], held_out), []) for held_out in (False, True))
        if usual and held:
            at = threshold(held, false_positive_rate)
            results[attack] = detection_rate(scores, at), auroc(usual, scores)
    return results
