"""Compare the detectors of an audit: by how much the AUROC of the best one exceeds that of each other one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from underfire.audit.detection import AttackScores, DetectorResult, Scores, read_scores
from underfire.audit.reading import Source, largest
from underfire.measures.detection import auroc_difference
from underfire.records import Interval


@dataclass(frozen=True)
class DetectorDifference:
    """Two detectors on the successes of one attack that knows neither, at its largest size.

    Attributes:
        detector: the detector whose lowest AUROC over the attacks is the highest.
        other: another detector.
        difference: the AUROC of the first minus that of the other, paired over the images.
    """

    detector: str
    other: str
    label: str
    norm: str
    eps: float
    difference: Interval


def detector_differences(source: Source, results: list[DetectorResult]) -> list[DetectorDifference]:
    """Return the differences of the best detector from every other one, for every attack; none of one detector.

    An attack that knows a detector makes other images for each of them, so that they cannot be paired.
    """
    known = [one for one in results if not one.aware and one.worst]
    if len(known) < 2:
        return []
    best, scores = max(known, key=lambda one: one.least.value).detector, read_scores(source)
    plain = [one for one in scores.attacked if not one.aware and one.successes]
    by_detector = {one.detector: {g.label: g for g in largest(p for p in plain if p.detector == one.detector)}
                   for one in known}  # fmt: skip
    others = [name for name in by_detector if name != best]
    return [found for other in others for found in _compare(best, other, scores, by_detector)]


def _compare(
    best: str, other: str, scores: Scores, by_detector: Mapping[str, Mapping[str, AttackScores]]
) -> list[DetectorDifference]:
    """Return the differences of two detectors, for every attack whose images both have scored."""
    found, clean = [], (scores.clean[best], scores.clean[other])
    for label, one in by_detector[best].items():
        two = by_detector[other].get(label)
        if two is None or two.eps != one.eps or two.successes.keys() != one.successes.keys():
            continue  # the run is not finished
        if len(clean[0]) != len(clean[1]):
            continue
        hits = [[part.successes[image] for image in one.successes] for part in (one, two)]
        difference = auroc_difference(clean, (hits[0], hits[1]))
        found.append(DetectorDifference(best, other, label, one.norm, one.eps, difference))
    return found
