"""The section of the report on detectors: what each kind of attacker achieves, with ROC curves and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from underfire.audit.detection import AttackScores, Detection, DetectorResult, Scores, not_run, read_scores
from underfire.audit.detector_differences import DetectorDifference
from underfire.audit.reading import largest
from underfire.measures.detection import threshold
from underfire.measures.roc import roc_curve
from underfire.records import Check, Interval
from underfire.report import plots, words

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger
    from underfire.audit.summary import Findings


@dataclass(frozen=True)
class Block:
    """The part of the page on one detector and one kind of attacker.

    Attributes:
        result: the worst attack and the mean over the attacks.
        rows: the result for each attack at its largest size, with the key and the number of its curve; no key and -1
            if no attack succeeded.
        least: the result for the worst attack; None if no attack succeeded.
        charts: the ROC curves and the histograms; empty if no attack succeeded.
        failed: the checks that failed, by attack.
    """

    result: DetectorResult
    rows: list[tuple[Markup, int, Detection]]
    least: Detection | None
    charts: tuple[Markup, ...]
    failed: dict[str, Check]


@dataclass(frozen=True)
class Panel:
    """The part of the page on one detector.

    Attributes:
        detector: its label.
        first: one of its results, for the threshold that all of them share.
        blocks: the attackers, the one who knows the detector first.
        refused: for each attack that an attacker who knows it could not run, its label and the reason.
        learned: the attacks that it has learned from, by their labels.
        new: for each of these, the result that also has the figures of the detector fitted without it; empty if it was
            not fitted so.
    """

    detector: str
    first: Detection
    blocks: list[Block]
    refused: list[tuple[str, str]]
    learned: list[str]
    new: list[Detection]

    @property
    def aware(self) -> bool:
        """Return whether an attacker who knows the detector was tried."""
        return self.blocks[0].result.aware

    @property
    def results(self) -> tuple[DetectorResult | None, DetectorResult | None]:
        """Return the results of the attacker who knows the detector and of the one who does not; None if not tried."""
        by_aware = {block.result.aware: block.result for block in self.blocks}
        return by_aware.get(True), by_aware.get(False)


def panels(ledger: Ledger, found: Findings, styles: Mapping[str, int]) -> list[Panel]:
    """Return the panel of every detector.

    Args:
        ledger: the run, which has the scores.
        found: its findings.
        styles: the style of the curve of each attack, by its label.
    """
    if not found.detectors:
        return []
    scores, refused, made = read_scores(ledger), not_run(ledger), []
    for name in dict.fromkeys(result.detector for result in found.detectors):
        blocks = [_block(result, scores, found, styles) for result in found.detectors if result.detector == name]
        own = [d for d in found.detections if d.detector == name]
        learned = list(dict.fromkeys(d.label for d in own if d.learned))
        new = largest(d for d in own if d.auroc_if_new)
        made.append(Panel(name, own[0], blocks, refused.get(name, []), learned, new))
    return made


@dataclass(frozen=True)
class Compared:
    """The table that compares the best detector with each other one.

    Attributes:
        detector: the best one.
        others: the other ones.
        rows: for each attack, its facts, and the differences in the order of `others`; None if one is not known.
    """

    detector: str
    others: list[str]
    rows: list[tuple[DetectorDifference, list[Interval | None]]]


def compared(found: Sequence[DetectorDifference]) -> Compared | None:
    """Return the table of differences; None if there are none."""
    if not found:
        return None
    others, rows = list(dict.fromkeys(one.other for one in found)), list[tuple[DetectorDifference, list[Any]]]()
    for label in dict.fromkeys(one.label for one in found):
        own = {one.other: one for one in found if one.label == label}
        rows.append((next(iter(own.values())), [own[name].difference if name in own else None for name in others]))
    return Compared(found[0].detector, others, rows)


def _block(result: DetectorResult, scores: Scores, found: Findings, styles: Mapping[str, int]) -> Block:
    """Return the block of one detector and one kind of attacker."""
    of = result.detector, result.aware
    rows = largest(d for d in found.detections if (d.detector, d.aware) == of)
    groups = largest(one for one in scores.attacked if (one.detector, one.aware) == of and one.successes)
    drawn = {one.label: number for number, one in enumerate(groups)}
    keys = [plots.key(styles.get(d.label, plots.WORST)) if d.label in drawn else Markup() for d in rows]
    keyed = [(key, drawn.get(d.label, -1), d) for key, d in zip(keys, rows, strict=True)]
    least = next((d for d in rows if d.label == result.worst), None)
    charts = _charts(result, groups, scores, rows[0].stated, styles) if groups else ()
    return Block(result, keyed, least, charts, {label: one for label, one in result.checks.items() if not one.passed})


def _charts(
    result: DetectorResult, groups: list[AttackScores], scores: Scores, rate: float, styles: Mapping[str, int]
) -> tuple[Markup, Markup]:
    """Return the ROC curves of all attacks, and the histograms of clean images and of all attacks."""
    clean, at = scores.clean[result.detector], threshold(scores.held[result.detector], rate)
    hits = [(styles.get(one.label, plots.WORST), list(one.successes.values())) for one in groups]
    curves = [(style, curve.fpr, curve.tpr) for style, part in hits for curve in [roc_curve(clean, part)]]
    areas = f"The lowest area is {result.least.value:.3f}, of {result.worst}; the mean {result.mean.value:.3f}."
    attacks = f"{len(groups)} attacks" + (" that know it" if result.aware else "")
    return (
        plots.roc(curves, f"ROC curves of {result.detector} for {attacks}. {areas}"),
        plots.histograms(
            clean,
            hits,
            at.value,
            f"Histograms of the scores of {result.detector}: clean images and the successes of {attacks}. "
            f"The threshold {at.value:.3g} flags {words.percent(at.rate.value)} of clean images.",
        ),
    )
