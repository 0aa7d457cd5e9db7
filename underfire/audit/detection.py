"""Summarise how well the detectors of an audit see its attacks, from the tables of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from underfire.audit.reading import Source, largest
from underfire.measures.detection import Threshold, auroc, detection_rate, threshold
from underfire.measures.detection_over_attacks import over_attacks, over_budgets
from underfire.measures.roc import tpr_at
from underfire.records import Check, Interval

RATES = (0.01, 0.05, 0.1)
"""The false-positive rates at which the report states how many attacks a detector sees."""


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
        auroc_of_all: the same with every attacked image, successful or not.
        evaded: the share of all images that the attack changes so that they fool the model and are not flagged.
        attainable: the share for which this attack does so at this size or at a smaller one.
        at: the share of the successful attacks that is flagged at other false-positive rates, by the rate in per cent;
            without the rates that the clean images of the audit cannot tell.
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
    auroc_of_all: Interval
    evaded: Interval
    attainable: Interval
    at: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorResult:
    """One detector against all attacks, each at its largest size.

    Attributes:
        detector: its label.
        worst: the attack with the lowest AUROC; empty if no attack succeeded.
        least: that AUROC, with an interval that holds for the lowest of the true ones.
        mean: the mean AUROC over the attacks.
        checks: for every attack with several sizes, whether it evades the detector at least as often with a larger
            size; one that does not is weaker than it could be.
    """

    detector: str
    worst: str
    least: Interval
    mean: Interval
    checks: dict[str, Check]


@dataclass(frozen=True)
class AttackScores:
    """The scores that one detector gives to the images of one attack at one size, of images classified correctly.

    Attributes:
        attacked: the maps that the attack is aimed at, by their labels; empty for a plain attack.
        every: the lowest score over the seeds, of each image by its name.
        successes: the lowest score of a success, of each image on which a seed succeeded.
    """

    detector: str
    label: str
    norm: str
    eps: float
    attacked: str
    every: dict[str, float]
    successes: dict[str, float]


@dataclass(frozen=True)
class Scores:
    """All scores of an audit.

    Attributes:
        clean: the scores of the clean images that the model classifies correctly, by detector.
        held: the scores of the held-out clean images that thresholds are chosen from, by detector.
        attacked: the scores of attacked images.
    """

    clean: dict[str, list[float]]
    held: dict[str, list[float]]
    attacked: tuple[AttackScores, ...]


def read_scores(source: Source) -> Scores:
    """Return the scores of every detector, those of attacks in the order of detectors, norms, labels and sizes."""
    clean: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    for row in source.sql("SELECT detector, held_out, score FROM clean_scores WHERE held_out OR was_right ORDER BY id"):
        (held if row["held_out"] else clean).setdefault(row["detector"], []).append(row["score"])
    groups: dict[tuple[str, str, str, float], AttackScores] = {}
    query = """
    SELECT detector, norm, label, eps, any_value(attacked) AS attacked, id,
           min(score) AS every, min(score) FILTER (success) AS success
    FROM scores WHERE was_right GROUP BY detector, norm, label, eps, id ORDER BY detector, norm, label, eps, id
    """
    for row in source.sql(query):
        name = row["detector"], row["norm"], row["label"], row["eps"]
        empty = AttackScores(row["detector"], row["label"], row["norm"], row["eps"], row["attacked"], {}, {})
        group = groups.setdefault(name, empty)
        group.every[row["id"]] = row["every"]
        if row["success"] is not None:
            group.successes[row["id"]] = row["success"]
    return Scores(clean, held, tuple(groups.values()))


def detections(source: Source, false_positive_rate: float) -> list[Detection]:
    """Return every detector against every attack at every size, in the order of detectors, norms, labels and sizes."""
    return _detections(read_scores(source), false_positive_rate)


def _detections(scores: Scores, false_positive_rate: float) -> list[Detection]:
    found = []
    thresholds = {name: threshold(held, false_positive_rate) for name, held in scores.held.items()}
    for one in scores.attacked:
        if one.detector not in thresholds or one.detector not in scores.clean:
            continue
        at, clean, hits = thresholds[one.detector], scores.clean[one.detector], list(one.successes.values())
        budgets = over_budgets({other.eps: _evaded(other, at) for other in scores.attacked if _same(one, other)})
        found.append(
            Detection(
                detector=one.detector,
                label=one.label,
                norm=one.norm,
                eps=one.eps,
                attacked=one.attacked,
                stated=false_positive_rate,
                expected=at.rate,
                measured=detection_rate(clean, at),
                rate=detection_rate(hits, at),
                auroc=auroc(clean, hits),
                auroc_of_all=auroc(clean, list(one.every.values())),
                evaded=budgets.measured[one.eps],
                attainable=budgets.attainable[one.eps],
                at={f"{100 * r:g}": tpr_at(clean, hits, r) for r in RATES if hits and (len(clean) + 1) * r >= 1},
            )
        )
    return found


def detector_results(source: Source, false_positive_rate: float) -> list[DetectorResult]:
    """Return every detector against all attacks together."""
    scores, results = read_scores(source), []
    for name in dict.fromkeys(one.detector for one in scores.attacked):
        if name not in scores.held or name not in scores.clean:
            continue
        at = threshold(scores.held[name], false_positive_rate)
        own = [one for one in scores.attacked if one.detector == name]
        known = {one.label: list(one.successes.values()) for one in largest(own) if one.successes}
        nothing = Interval(float("nan"), 0.0, 1.0, 0)
        over = over_attacks(scores.clean[name], known) if known else None
        checks = {}
        for one in largest(own):
            sizes = [other for other in own if _same(one, other)]
            if len(sizes) > 1:
                checks[one.label] = over_budgets({other.eps: _evaded(other, at) for other in sizes}).check
        parts = (over.worst, over.least, over.mean) if over else ("", nothing, nothing)
        results.append(DetectorResult(name, *parts, checks))
    return results


def _evaded(one: AttackScores, at: Threshold) -> np.ndarray:
    """Return whether a success on each image is not flagged, bool `[n]`, in the order of the images."""
    return np.array([one.successes.get(image, np.inf) <= at.value for image in sorted(one.every)], dtype=bool)


def _same(one: AttackScores, other: AttackScores) -> bool:
    """Return whether two results are of one detector and one attack, at any size, on the same images."""
    names = (one.detector, one.norm, one.label) == (other.detector, other.norm, other.label)
    return names and one.every.keys() == other.every.keys()
