"""The three questions of the verdict with their answers, each with the colour that the standing of the run allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from underfire.audit.comparison import PAIRS, Difference
from underfire.audit.map_shifts import PLAUSIBLE_IOU, MapShift
from underfire.audit.reading import RobustAccuracy
from underfire.audit.standing import Standing, accuracy_tone
from underfire.audit.summary import Findings
from underfire.records import Interval
from underfire.report import plots, words

_LONG = 260  # the length of a meter in pixels


@dataclass(frozen=True)
class Answer:
    """One question of the verdict with its answer.

    Attributes:
        question: the question.
        tone: the colour: `"bad"`, `"warn"`, `"good"` or `"none"` (no verdict).
        answer: the answer in a few words.
        figure: the figure behind the answer with its interval.
        detail: one or two sentences that explain it.
        meter: the figure on a scale.
        pips: the tone of the dot of each masking check.
        verdict: the tone that the figures alone would have; in a run that is not firm, `tone` is more careful.
    """

    question: str
    tone: str
    answer: str
    figure: str = ""
    detail: str = ""
    meter: Markup | None = None
    pips: tuple[str, ...] = ()
    verdict: str = "none"


def gain_tone(gap: Difference) -> str:
    """Return the tone of an attack on a map, compared with a plain attack.

    It is good if the attack does not keep significantly more of the map, and bad if it does and at least half of the
    maps stay plausible. With too few pairs for a significant difference it is `"none"`.
    """
    if gap.iou.n < PAIRS:
        return "none"
    return "good" if not gap.forged else "bad" if gap.plausible[0].value >= 0.5 else "warn"


def capped(tone: str, standing: Standing) -> str:
    """Return the tone that a figure may have in a run of this standing: no green unless the run is firm.

    Bad and warn stay whatever the standing, because a successful attack is a fact, except where the figures say
    nothing at all.
    """
    if standing.level == "nothing":
        return "none"
    if tone == "good" and standing.level != "firm":
        return "none" if standing.level == "blind" else "warn"
    return tone


def worst_shift(found: Sequence[MapShift]) -> MapShift | None:
    """Return the result with the highest rate of plausible maps; if any is aimed at its interpreter, of these."""
    aimed = [s for s in found if s.forges] or list(found)
    return max(aimed, key=lambda s: s.plausible.value, default=None)


def accuracy(found: Findings, worst: RobustAccuracy | None) -> Answer:
    """Return the answer on the accuracy under attack."""
    question, standing = "How often is the model right under attack?", found.standing
    if found.answered:
        question = "How often does the model keep its answer under attack?"
    if standing.level == "nothing":
        headline = "Nothing can be said" if found.clean and (worst or found.refused) else "Not tested"
        detail = "No attack has a result yet."
        if found.clean:
            detail = f"Without an attack: right on {round(found.clean.value * found.clean.n)} of {found.clean.n}."
        return Answer(question, "none", headline, detail=detail)
    if worst is None:
        return Answer(question, "none", "Not tested", detail="No attack has a result yet.")
    if standing.level == "blind":
        left = min(worst.robust.value, standing.bound.left if standing.bound else 1.0)
        detail = (
            f"The attacks of the spec leave {words.percent(worst.robust.value)} at "
            f"{words.threat(worst.norm, worst.eps)}, but checks say that they were blind."
        )
        return Answer(question, "bad", f"At most {words.percent(left)}", detail=detail)
    before = found.clean.value if found.clean else math.nan
    against = f" Without an attack: {words.percent(before)}, the upright line." if found.clean else ""
    return Answer(
        question,
        capped(accuracy_tone(worst.robust.value, before if found.clean else 1.0), standing),
        words.percent(worst.robust.value),
        _interval(worst.robust),
        f"Robust accuracy under the worst attack, at {words.threat(worst.norm, worst.eps)}; "
        f"the strongest single attack is {worst.worst}.{against}",
        plots.meter(worst.robust.value, worst.robust.low, worst.robust.high, before, length=_LONG),
    )


def _interval(i: Interval) -> str:
    return f"95\u00a0% interval {words.format_interval(i)}, n\u00a0=\u00a0{i.n}"


_REVEALED = "Do the maps reveal the attack?"


def forgery(gap: Difference, standing: Standing) -> Answer:
    """Return the answer on the explanations, by the comparison with a plain attack."""
    kept, plain = gap.plausible
    verdict = "none" if standing.level == "nothing" else gain_tone(gap)
    tone = capped(verdict, standing)
    text = f"The map hides the attack in {words.percent(kept.value)} of the images"
    if verdict == "good":
        text += ", not significantly more than after a plain attack"
    few = gap.iou.n < PAIRS
    end = f". {gap.iou.n} images that both fool are too few to compare." if few else ", the upright line."
    return Answer(
        _REVEALED,
        tone,
        "Cannot be said" if tone == "none" else text,
        f"{_interval(kept)} images that {gap.label} and {gap.baseline} fool",
        f"{gap.label} changes the class, and the {gap.interpreter} map keeps an IoU of at least {PLAUSIBLE_IOU} with "
        f"the clean map. After the plain attack {gap.baseline}, the map hides the attack in "
        f"{words.percent(plain.value)}{end}",
        plots.meter(kept.value, kept.low, kept.high, plain.value, length=_LONG) if not few else None,
        verdict=verdict,
    )


def explanations(shift: MapShift | None, standing: Standing) -> Answer:
    """Return the answer on the explanations without a comparison: there is no verdict."""
    if shift is None:
        detail = "This run has no map of an attacked image: nothing is known about explanations."
        return Answer(_REVEALED, "none", "Not tested", detail=detail)
    rate = f"After {shift.label}, the {shift.interpreter} map stays plausible (IoU with the clean map at least "
    rate += f"{PLAUSIBLE_IOU}) while the class changes in {words.percent(shift.plausible.value)} of the images. "
    if shift.forges:
        reason = "No plain attack of the same norm and size fools the same images, so there is nothing to compare with."
    else:
        reason = "No attack was aimed at an explanation, so it may still be possible to forge one."
    return Answer(_REVEALED, "none", "Not compared" if shift.forges else "Not attacked", "", rate + reason)


def belief(found: Findings) -> Answer:
    """Return the answer on whether the figures can be used."""
    question, checks, standing = "Can these numbers be believed?", found.checks, found.standing
    failed = [c for c in checks if not c.passed]
    figure = f"{len(checks) - len(failed)} of {len(checks)} masking checks passed" if checks else ""
    pips = tuple(capped("good", standing) if c.passed else "warn" for c in checks)
    if standing.level == "nothing" and found.clean and (found.robust or found.refused):
        return Answer(question, "warn", "They say nothing", figure, f"{standing.headline}.", pips=pips)
    if not checks:
        return Answer(
            question, "warn", "Not checked", detail="No masking check has run: robust accuracies are upper bounds."
        )
    warnings = " ".join(f"{words.plain(c.name)}: {c.detail}" for c in failed[:2])
    if standing.level == "blind":
        return Answer(question, "bad", "No", figure, warnings, pips=pips)
    if failed:
        return Answer(question, "warn", "With care", figure, warnings, pips=pips)
    if standing.level == "partial":
        return Answer(question, "warn", "As far as they go", figure, standing.reasons[0], pips=pips)
    if standing.level == "open":
        return Answer(question, "warn", "With care", figure, " ".join(standing.reasons[:2]), pips=pips)
    return Answer(
        question, "good", "Yes", figure, "No sign of masked gradients or of an attack that stops too early.", pips=pips
    )
