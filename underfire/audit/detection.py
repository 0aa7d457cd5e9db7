"""Summarise how well the detectors of an audit see its attacks, from the tables of the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from underfire.audit.left_out import if_new
from underfire.audit.reading import Source, largest
from underfire.audit.sizes import size
from underfire.measures.detection import Threshold, auroc, detection_rate, threshold
from underfire.measures.detection_over_attacks import over_attacks, over_budgets, over_knowledge
from underfire.measures.roc import tpr_at
from underfire.measures.statistics import rate
from underfire.records import Check, Interval

RATES = (0.01, 0.05, 0.1)
"""The false-positive rates at which the report states how many attacks a detector sees."""


@dataclass(frozen=True)
class Detection:
    """One detector against one attack at one size.

    Only images count that the model classifies correctly before the attack, and whose attack succeeded. With several
    seeds, the success with the lowest score counts, which is the worst for the detector.

    Attributes:
        aware: whether the attacker knows the detector.
        stated: the requested false-positive rate.
        expected: the false-positive rate of the threshold, from the held-out clean images that it was chosen from.
        measured: the share of the audit's own clean images, classified correctly, that the threshold flags.
        rate: the share of the successful attacks that it flags.
        auroc: the probability that a successful attack scores higher than a clean image of the audit.
        auroc_of_all: the same with every attacked image, successful or not.
        evaded: the share of all images that the attack changes so that they fool the model and are not flagged.
        attainable: the share for which this attack does so at this size or at a smaller one; if it knows the detector,
            also the share for which it does so without knowing it.
        at: the share of the successful attacks that is flagged at other false-positive rates, by the rate in per cent;
            without the rates that the clean images of the audit cannot tell.
        learned: whether the detector has learned from images of this attack.
        rate_if_new: `rate` of the same detector fitted without this attack; None if it was not fitted so.
        auroc_if_new: `auroc` of that detector.
    """

    detector: str
    aware: bool
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
    learned: bool = False
    rate_if_new: Interval | None = None
    auroc_if_new: Interval | None = None


@dataclass(frozen=True)
class DetectorResult:
    """One detector against all attacks by one kind of attacker, each at its largest size.

    Attributes:
        detector: its label.
        aware: whether the attacker knows the detector.
        evaded: the share of all images that some attack at some size changes so that they fool the model and are not
            flagged. An attacker who knows the detector can also run the attacks that do not know it.
        worst: the attack with the lowest AUROC; empty if no attack succeeded.
        least: that AUROC, with an interval that holds for the lowest of the true ones.
        mean: the mean AUROC over the attacks.
        checks: whether every attack with several sizes evades the detector at least as often with a larger size, and
            whether one that knows the detector does so at least as often as without knowing it; by attack. An attack
            that fails is weaker than it could be.
    """

    detector: str
    aware: bool
    evaded: Interval
    worst: str
    least: Interval
    mean: Interval
    checks: dict[str, Check]


@dataclass(frozen=True)
class AttackScores:
    """The scores that one detector gives to the images of one attack at one size, of images classified correctly.

    Attributes:
        aware: whether the attacker knows the detector.
        attacked: the maps that the attack is aimed at, by their labels; empty for a plain attack.
        every: the lowest score over the seeds, of each image by its name.
        successes: the lowest score of a success, of each image on which a seed succeeded.
    """

    detector: str
    aware: bool
    label: str
    norm: str
    eps: float
    attacked: str
    every: dict[str, float]
    successes: dict[str, float]

    def evaded(self, at: Threshold) -> dict[str, bool]:
        """Return for each image by its name whether a success is not flagged, in the order of the names."""
        return {image: self.successes.get(image, np.inf) <= at.value for image in sorted(self.every)}


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
    """Return the scores of every detector; those of attackers who know it first, then by norm, label and size."""
    clean: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    query = """
        SELECT detector, held_out, score FROM clean_scores WHERE left_out = '' AND (held_out OR was_right) ORDER BY id
    """
    for row in source.sql(query):
        (held if row["held_out"] else clean).setdefault(row["detector"], []).append(row["score"])
    groups: dict[tuple[str, bool, str, str, float], AttackScores] = {}
    query = """
    SELECT detector, aware, norm, label, eps, any_value(attacked) AS attacked, id,
           min(score) AS every, min(score) FILTER (success) AS success
    FROM (SELECT *, FALSE AS aware FROM scores UNION ALL BY NAME SELECT *, TRUE AS aware FROM aware_scores)
    WHERE was_right AND left_out = '' GROUP BY detector, aware, norm, label, eps, id
    ORDER BY detector, aware DESC, norm, label, eps, id
    """
    for row in source.sql(query):
        name = row["detector"], row["aware"], row["norm"], row["label"], row["eps"]
        empty = AttackScores(
            row["detector"], row["aware"], row["label"], row["norm"], row["eps"], row["attacked"], {}, {}
        )
        group = groups.setdefault(name, empty)
        group.every[row["id"]] = row["every"]
        if row["success"] is not None:
            group.successes[row["id"]] = row["success"]
    return Scores(clean, held, tuple(groups.values()))


def detections(source: Source, false_positive_rate: float) -> list[Detection]:
    """Return every detector against every attack at every size, in the order of `read_scores`."""
    scores, new, found = read_scores(source), if_new(source, false_positive_rate), list[Detection]()
    query = "SELECT detector, unnest(learned) AS label FROM fit_cells WHERE left_out = ''"
    learned = {(row["detector"], row["label"]) for row in source.sql(query)}
    for name, at in _thresholds(scores, false_positive_rate).items():
        clean, own = scores.clean[name], [one for one in scores.attacked if one.detector == name]
        evaded = [one.evaded(at) for one in own]
        for one, missed in zip(own, evaded, strict=True):
            hits = list(one.successes.values())
            rate_if_new, auroc_if_new = new.get((name, one.label, one.norm, one.eps), (None, None))
            reached = [part for other, part in zip(own, evaded, strict=True) if _reaches(one, other)]
            found.append(
                Detection(
                    detector=one.detector,
                    aware=one.aware,
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
                    evaded=rate(list(missed.values())),
                    attainable=_any(reached),
                    at={f"{100 * r:g}": tpr_at(clean, hits, r) for r in RATES if hits and (len(clean) + 1) * r >= 1},
                    learned=(name, one.label) in learned,
                    rate_if_new=None if one.aware else rate_if_new,
                    auroc_if_new=None if one.aware else auroc_if_new,
                )
            )
    return found


def detector_results(source: Source, false_positive_rate: float) -> list[DetectorResult]:
    """Return every detector against all attacks together: first by an attacker who knows it, if there are such."""
    scores, results = read_scores(source), []
    for name, at in _thresholds(scores, false_positive_rate).items():
        everyone = [one for one in scores.attacked if one.detector == name]
        for aware in dict.fromkeys(one.aware for one in everyone):
            own = [one for one in everyone if one.aware == aware]
            known = {one.label: list(one.successes.values()) for one in largest(own) if one.successes}
            nothing = Interval(float("nan"), 0.0, 1.0, 0)
            over = over_attacks(scores.clean[name], known) if known else None
            parts = (over.worst, over.least, over.mean) if over else ("", nothing, nothing)
            evaded = _any([one.evaded(at) for one in everyone if aware or not one.aware])
            results.append(DetectorResult(name, aware, evaded, *parts, _checks(own, everyone, at)))
    return results


def not_run(source: Source) -> dict[str, list[tuple[str, str]]]:
    """Return, by detector, the attacks that an attacker who knows it could not run, each with the reason."""
    query = "SELECT DISTINCT detector, label, reason FROM refused JOIN evade_cells USING (cell) ORDER BY ALL"
    found: dict[str, list[tuple[str, str]]] = {}
    for row in source.sql(query):
        found.setdefault(row["detector"], []).append((row["label"], row["reason"]))
    return found


def _thresholds(scores: Scores, false_positive_rate: float) -> dict[str, Threshold]:
    """Return the threshold of every detector that has scores of clean and of attacked images."""
    names = dict.fromkeys(one.detector for one in scores.attacked)
    return {
        name: threshold(scores.held[name], false_positive_rate)
        for name in names
        if name in scores.held and name in scores.clean
    }


def _checks(own: list[AttackScores], everyone: list[AttackScores], at: Threshold) -> dict[str, Check]:
    """Return the checks of one kind of attacker, by attack; of two, the one that failed."""
    checks = {}
    for one in largest(own):
        sizes = {other.eps: list(other.evaded(at).values()) for other in own if _same(one, other)}
        found = [over_budgets(sizes, written=partial(size, one.norm)).check] if len(sizes) > 1 else []
        plain = [other for other in everyone if one.aware and not other.aware and _matches(one, other)]
        found += [
            over_knowledge(list(other.evaded(at).values()), sizes[one.eps], size(one.norm, one.eps)) for other in plain
        ]
        if found:
            checks[one.label] = min(found, key=lambda check: check.passed)
    return checks


def _any(evaded: list[dict[str, bool]]) -> Interval:
    """Return the share of the images that evade the detector in any of several results."""
    images = sorted({image for part in evaded for image in part})
    return rate([any(part.get(image, False) for part in evaded) for image in images])


def _same(one: AttackScores, other: AttackScores) -> bool:
    """Return whether two results are of one detector, attacker and attack, at any size, on the same images."""
    return one.aware == other.aware and _alike(one, other)


def _matches(one: AttackScores, other: AttackScores) -> bool:
    """Return whether two results are of one detector, attack and size, by any attacker, on the same images."""
    return one.eps == other.eps and _alike(one, other)


def _reaches(one: AttackScores, other: AttackScores) -> bool:
    """Return whether the attacker of one result could also attain the other: it is no larger and knows no more."""
    return other.eps <= one.eps and other.aware <= one.aware and _alike(one, other)


def _alike(one: AttackScores, other: AttackScores) -> bool:
    """Return whether two results are of one detector and attack, by any attacker at any size, on the same images."""
    names = (one.detector, one.norm, one.label) == (other.detector, other.norm, other.label)
    return names and one.every.keys() == other.every.keys()
