"""Summarise how well the detectors of an audit see its attacks, from the tables of the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from underfire.audit.reading import Source
from underfire.measures.detection import Threshold, auroc, detection_rate, threshold
from underfire.records import Interval


@dataclass(frozen=True)
class Detection:
    """One detector against one attack at one size.

    Only images count that the model classifies correctly before the attack, and whose attack succeeded. With several
    seeds, the success with the lowest score counts, which is the worst for the detector.

    Attributes:
        stated: the requested false-positive rate.
        expected: the false-positive rate of the threshold, from the held-out clean images that it was chosen from.
        measured: the share of the audit's own clean images, classified correctly, that the threshold flags.
        rate: the share of the successful attacks that it flags.
        auroc: the probability that a successful attack scores higher than a clean image of the audit.
    """

    detector: str
    label: str
    norm: str
    eps: float
    attacked: str
    stated: float
    expected: Interval
    measured: Interval
    rate: Interval
    auroc: Interval


def detections(source: Source, false_positive_rate: float) -> list[Detection]:
    """Return every detector against every attack at every size, in the order of detectors, norms, labels and sizes."""
    clean: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    for row in source.sql("SELECT detector, held_out, score FROM clean_scores WHERE held_out OR was_right ORDER BY id"):
        (held if row["held_out"] else clean).setdefault(row["detector"], []).append(row["score"])
    groups: dict[tuple[str, str, str, float, str], list[float]] = {}
    query = """
    SELECT detector, norm, label, eps, any_value(attacked) AS attacked, id, min(score) FILTER (success) AS score
    FROM scores WHERE was_right GROUP BY detector, norm, label, eps, id ORDER BY detector, norm, label, eps, id
    """
    for row in source.sql(query):
        key = row["detector"], row["norm"], row["label"], row["eps"], row["attacked"]
        groups.setdefault(key, []).extend([] if row["score"] is None else [row["score"]])
    found = []
    thresholds = {name: threshold(scores, false_positive_rate) for name, scores in held.items()}
    for (detector, norm, label, eps, attacked), scores in groups.items():
        if detector in thresholds and detector in clean:
            at: Threshold = thresholds[detector]
            found.append(
                Detection(
                    detector=detector,
                    label=label,
                    norm=norm,
                    eps=eps,
                    attacked=attacked,
                    stated=false_positive_rate,
                    expected=at.rate,
                    measured=detection_rate(clean[detector], at),
                    rate=detection_rate(scores, at),
                    auroc=auroc(clean[detector], scores),
                )
            )
    return found
