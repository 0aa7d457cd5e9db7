"""The section of the report on detectors: ROC curves, histograms of scores, and a table for each detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from underfire.audit.detection import AttackScores, Detection, DetectorResult, Scores, read_scores
from underfire.audit.reading import largest
from underfire.measures.detection import threshold
from underfire.measures.roc import roc_curve
from underfire.records import Check
from underfire.report import plots, words

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger
    from underfire.audit.summary import Findings


@dataclass(frozen=True)
class Panel:
    """The part of the page on one detector.

    Attributes:
        result: the worst attack and the mean over the attacks.
        rows: the result for each attack at its largest size, with the key and the number of its curve; no key and -1
            if no attack succeeded.
        least: the result for the worst attack; None if no attack succeeded.
        charts: the ROC curves and the histograms; empty if no attack succeeded.
        failed: the checks over budgets that failed, by attack.
    """

    result: DetectorResult
    rows: list[tuple[Markup, int, Detection]]
    least: Detection | None
    charts: tuple[Markup, ...]
    failed: dict[str, Check]


def panels(ledger: Ledger, found: Findings, styles: Mapping[str, int]) -> list[Panel]:
    """Return the panel of every detector.

    Args:
        ledger: the run, which has the scores.
        found: its findings.
        styles: the style of the curve of each attack, by its label.
    """
    if not found.detectors:
        return []
    scores, made = read_scores(ledger), []
    for result in found.detectors:
        rows = largest(d for d in found.detections if d.detector == result.detector)
        groups = largest(one for one in scores.attacked if one.detector == result.detector and one.successes)
        drawn = {one.label: number for number, one in enumerate(groups)}
        keys = [plots.key(styles.get(d.label, plots.WORST)) if d.label in drawn else Markup() for d in rows]
        keyed = [(key, drawn.get(d.label, -1), d) for key, d in zip(keys, rows, strict=True)]
        least = next((d for d in rows if d.label == result.worst), None)
        charts = _charts(result, groups, scores, found.detections[0].stated, styles) if groups else ()
        failed = {label: check for label, check in result.checks.items() if not check.passed}
        made.append(Panel(result, keyed, least, charts, failed))
    return made


def _charts(
    result: DetectorResult, groups: list[AttackScores], scores: Scores, rate: float, styles: Mapping[str, int]
) -> tuple[Markup, Markup]:
    """Return the ROC curves of all attacks, and the histograms of clean images and of all attacks."""
    clean, at = scores.clean[result.detector], threshold(scores.held[result.detector], rate)
    hits = [(styles.get(one.label, plots.WORST), list(one.successes.values())) for one in groups]
    curves = [(style, curve.fpr, curve.tpr) for style, part in hits for curve in [roc_curve(clean, part)]]
    areas = f"The lowest area is {result.least.value:.3f}, of {result.worst}; the mean {result.mean.value:.3f}."
    return (
        plots.roc(curves, f"ROC curves of {result.detector} for {len(groups)} attacks. {areas}"),
        plots.histograms(
            clean,
            hits,
            at.value,
            f"Histograms of the scores of {result.detector}: clean images and the successes of {len(groups)} attacks. "
            f"The threshold {at.value:.3g} flags {words.percent(at.rate.value)} of clean images.",
        ),
    )
