"""Write the page of an experiment on attackers that know the detector: its table and what holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from underfire.measures.detection import auroc, detection_rate
from underfire.measures.statistics import rate
from underfire.records import Interval
from underfire.reproductions.detection.adaptive import RATE, Contest, Result
from underfire.reproductions.registry import Outcome, Setting

COLUMNS = (
    "detector",
    "flagged clean images",
    "ROC-AUC, unaware",
    "flagged attacks, unaware",
    "evades, unaware",
    "ROC-AUC, aware",
    "evades, aware",
    "accuracy, aware",
)

_HOW = f"""An attack evades a detector if the model predicts a wrong class and the score is at most the threshold, which
{RATE:.0%} of held-out clean images exceed. *Evades* is the share of all attacked images, all of them classified
correctly before; *accuracy, aware* is the rest, with images that are refused, under attackers who know the detector.
*Flagged attacks* and ROC-AUC count successful attacks only; the negatives are clean images that nothing else uses.
Brackets are 95 % intervals: Clopper-Pearson for shares, DeLong for ROC-AUC.

All attacks are PGD of one size. The unaware attacker maximises the margin of the classifier. Two attackers know the
detector: one attacks the guard, whose last logit is that of *refused*, towards the likeliest wrong class; the other
maximises the margin minus the hinge of the score above the threshold. On each image, the attacker who knows the
detector has the best of all three attacks, that is, the success with the lowest score. Both are lower bounds of what an
attacker can do."""

_NO_GRADIENT = """The score of {name} has no gradient. Its aware attacker tries the images that were made against
{others}: a weaker attack than that on the others."""


def outcome(contest: Contest, setting: Setting, results: Mapping[str, Result], title: str, source: str) -> Outcome:
    """Return the outcome of an experiment."""
    found = {label: figures(result) for label, result in results.items()}
    rows = [[label, *(_show(one[column]) for column in COLUMNS[1:])] for label, one in found.items()]
    n = len(next(iter(results.values())).lowest(aware=False))
    fooled = next(iter(found.values()))["fooled"]
    said = f"Without a detector, the unaware attacker fools the model on {fooled} of the images."
    notes = [_HOW, f"{said} {ranking(found)}"]
    for label, options in contest.detectors.items():
        if options["name"] == "ml_loo":
            notes.append(_NO_GRADIENT.format(name=label, others=" and ".join(contest.transferred)))
    return Outcome(
        title=title,
        source=source,
        spec=contest.spec(setting) | {"attacked": n},
        columns=COLUMNS,
        rows=rows,
        notes=notes,
        results=found,
    )


def figures(result: Result) -> dict[str, Interval]:
    """Return the figures of one detector, by column, and the share of images that the unaware attacker fools."""
    found = {"flagged clean images": detection_rate(result.clean, result.at)}
    for who in ("unaware", "aware"):
        lowest = result.lowest(who == "aware")
        hits = lowest[np.isfinite(lowest)]
        found[f"ROC-AUC, {who}"] = auroc(result.clean, hits)
        found[f"flagged attacks, {who}"] = detection_rate(hits, result.at)
        found[f"evades, {who}"] = rate(lowest <= result.at.value)
    found["accuracy, aware"] = rate(lowest > result.at.value)
    found["fooled"] = rate(np.isfinite(result.lowest(False)))
    return found


def ranking(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """Return which detector is evaded least often by each kind of attacker, and how many lose to the one that knows."""
    said = []
    for who in ("unaware", "aware"):
        shares = {label: one[f"evades, {who}"] for label, one in found.items()}
        lowest = min(shares.values(), key=lambda share: share.value)
        best = [label for label, share in shares.items() if share.value == lowest.value]
        if len(best) == len(found) > 1:
            said.append(f"An {who} attacker evades every detector on {_show(lowest)} of the images.")
        else:
            said.append(f"Least evaded by an {who} attacker: {', '.join(best)}, on {_show(lowest)} of the images.")
    lost = [one for one in found.values() if one["evades, aware"].low > one["evades, unaware"].high]
    return f"{' '.join(said)} For {len(lost)} of {len(found)} detectors, the intervals of both shares do not overlap."


def _show(value: Interval) -> str:
    return "–" if np.isnan(value.value) else f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
