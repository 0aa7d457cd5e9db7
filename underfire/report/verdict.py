"""The verdict and the findings of the report, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from underfire.audit.reading import PLAUSIBLE_IOU, MapShift, RobustAccuracy, largest
from underfire.audit.summary import Difference, Findings, leading
from underfire.records import Check, Interval
from underfire.report import plots, words

_RANK = {"bad": 0, "warn": 1, "good": 2, "none": 3}
_LONG = 260
_SEVERITY = {"bad": "Serious", "warn": "Notable", "good": "Withstood"}


@dataclass(frozen=True)
class Answer:
    """One question of the verdict with its answer; `tone` is `"bad"`, `"warn"`, `"good"` or `"none"` (not tested)."""

    question: str
    tone: str
    answer: str
    figure: str = ""
    detail: str = ""
    meter: Markup | None = None
    pips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The headline, two or three sentences about it, and the three questions with their answers."""

    headline: str
    lead: Markup
    cards: tuple[Answer, Answer, Answer]


@dataclass(frozen=True)
class Finding:
    """One finding: a sentence with its rate and its MITRE ATLAS technique."""

    tone: str
    words: str
    rate: Interval
    atlas: str

    @property
    def severity(self) -> str:
        """The tone as a word."""
        return _SEVERITY[self.tone]


def accuracy_tone(left: float, clean: float) -> str:
    """Return the tone of a robust accuracy: bad below half of the clean accuracy, good from nine tenths of it on."""
    return "bad" if left < 0.5 * clean else "warn" if left < 0.9 * clean else "good"


def forged_tone(rate: Interval) -> str:
    """Return the tone of a rate of forged maps: bad from half of the images on, good up to a tenth of them."""
    return "bad" if rate.value >= 0.5 else "warn" if rate.value > 0.1 else "good"


def gain_tone(gap: Difference) -> str:
    """Return the tone of an attack on a map, compared with a plain attack.

    It is good if the attack does not keep significantly more of the map, and bad if it does and at least half of the
    maps stay plausible.
    """
    return "good" if not gap.forged else "bad" if gap.plausible[0].value >= 0.5 else "warn"


def worst_accuracy(found: Sequence[RobustAccuracy]) -> RobustAccuracy | None:
    """Return the lowest robust accuracy of any norm and size; None if there is none."""
    return min(found, key=lambda f: (f.robust.value, f.norm, f.eps), default=None)


def worst_shift(found: Sequence[MapShift]) -> MapShift | None:
    """Return the result with the highest rate of forged maps; if attacks are aimed at their interpreter, of these."""
    aimed = [s for s in found if s.attacked == s.interpreter] or list(found)
    return max(aimed, key=lambda s: s.forged.value, default=None)


def judge(found: Findings) -> Verdict:
    """Return the verdict on all findings."""
    model = _accuracy(found.clean, worst_accuracy(found.robust))
    gap = next(iter(leading(found.differences)), None)
    explanation = _forgery(gap) if gap else _explanations(worst_shift(found.shifts))
    belief = _belief(found.checks)
    first = {
        "bad": "The model is easily fooled",
        "warn": "The model can be fooled",
        "good": "The model withstands these attacks",
        "none": "The model has not been attacked yet",
    }[model.tone]
    second = {
        "bad": "its explanations can be forged",
        "warn": "its explanations can sometimes be forged",
        "good": "its explanations were not forged",
        "none": "nothing was aimed at its explanations",
    }[explanation.tone]
    bridge = "and" if (model.tone == "good") == (explanation.tone == "good") else "but"
    return Verdict(f"{first}, {bridge} {second}", _lead(found, gap), (model, explanation, belief))


def _lead(found: Findings, gap: Difference | None) -> Markup:
    """Return the sentences under the headline."""
    parts = []
    worst, shift, checks = worst_accuracy(found.robust), worst_shift(found.shifts), found.checks
    if found.clean and worst:
        parts.append(
            Markup(
                "Without an attack, the model is right on <strong>{}</strong> of the images; under the worst attack "
                "({}), on <strong>{}</strong>."
            ).format(
                words.percent(found.clean.value), words.threat(worst.norm, worst.eps), words.percent(worst.robust.value)
            )
        )
    if gap:
        parts.append(
            Markup(
                "In <strong>{}</strong> of the images that {} fools, the explanation ({} map) hardly changes; with "
                "the plain attack {}, in {}."
            ).format(
                words.percent(gap.plausible[0].value),
                gap.label,
                gap.interpreter,
                gap.baseline,
                words.percent(gap.plausible[1].value),
            )
        )
    elif shift:
        parts.append(
            Markup("In <strong>{}</strong> of the images, {} fools the model, but the {} map hardly changes.").format(
                words.percent(shift.forged.value), shift.label, shift.interpreter
            )
        )
    failed = sum(not c.passed for c in checks)
    if checks and failed:
        parts.append(
            escape(f"{failed} of {len(checks)} checks on the attacks warn: the model may be weaker than it looks here.")
        )
    elif checks:
        parts.append(escape(f"All {len(checks)} checks on the attacks pass: no sign that they were too weak."))
    return Markup(" ").join(parts)


def _accuracy(clean: Interval | None, worst: RobustAccuracy | None) -> Answer:
    """Return the answer on the accuracy under attack."""
    question = "How often is the model right under attack?"
    if worst is None:
        return Answer(question, "none", "Not tested", detail="No attack has a result yet.")
    before = clean.value if clean else math.nan
    against = f" Without an attack: {words.percent(before)}, the upright line." if clean else ""
    return Answer(
        question,
        accuracy_tone(worst.robust.value, before if clean else 1.0),
        words.percent(worst.robust.value),
        _interval(worst.robust),
        f"Robust accuracy under the worst attack, at {words.threat(worst.norm, worst.eps)}; "
        f"the strongest single attack is {worst.worst}.{against}",
        plots.meter(worst.robust.value, worst.robust.low, worst.robust.high, before, length=_LONG),
    )


def _interval(i: Interval) -> str:
    return f"95\u00a0% interval {words.format_interval(i)}, n\u00a0=\u00a0{i.n}"


_SURVIVE = "Do the explanations survive?"
_ANSWERS = {"bad": "No", "warn": "Not always", "good": "Yes", "none": "Not attacked"}


def _forgery(gap: Difference) -> Answer:
    """Return the answer on the explanations, by the comparison with a plain attack."""
    kept, plain = gap.plausible
    tone = gain_tone(gap)
    return Answer(
        _SURVIVE,
        tone,
        _ANSWERS[tone],
        f"The map stays plausible in {words.percent(kept.value)}, {_interval(kept)}",
        f"{gap.label} changes the class, and the {gap.interpreter} map warns nobody: its IoU with the clean map is at "
        f"least {PLAUSIBLE_IOU}. With the plain attack {gap.baseline}: {words.percent(plain.value)}, the upright line.",
        plots.meter(kept.value, kept.low, kept.high, plain.value, length=_LONG),
    )


def _explanations(shift: MapShift | None) -> Answer:
    """Return the answer on the explanations where no comparison with a plain attack is possible."""
    if shift is None:
        detail = "This run has no interpreter: nothing is known about explanations."
        return Answer(_SURVIVE, "none", "Not tested", detail=detail)
    tone = forged_tone(shift.forged)
    aim = "" if shift.attacked else " No attack was aimed at an explanation, so it may still be possible to forge one."
    if aim and tone == "good":
        tone = "none"
    return Answer(
        _SURVIVE,
        tone,
        _ANSWERS[tone],
        f"The map stays plausible in {words.percent(shift.forged.value)}, {_interval(shift.forged)}",
        f"{shift.label} changes the class, and the {shift.interpreter} map warns nobody: its IoU with the clean map is "
        f"at least {PLAUSIBLE_IOU}.{aim}",
        plots.meter(shift.forged.value, shift.forged.low, shift.forged.high, length=_LONG),
    )


def _belief(checks: Sequence[Check]) -> Answer:
    """Return the answer on the masking checks."""
    question = "Can these numbers be believed?"
    if not checks:
        return Answer(
            question, "warn", "Not checked", detail="No masking check has run: robust accuracies are upper bounds."
        )
    failed = [c for c in checks if not c.passed]
    figure = f"{len(checks) - len(failed)} of {len(checks)} masking checks passed"
    pips = tuple("good" if c.passed else "warn" for c in checks)
    if not failed:
        return Answer(
            question,
            "good",
            "Yes",
            figure,
            "No sign of masked gradients or of an attack that stops too early.",
            pips=pips,
        )
    return Answer(
        question,
        "warn",
        "With care",
        figure,
        " ".join(f"{words.plain(c.name)}: {c.detail}" for c in failed[:2]),
        pips=pips,
    )


def findings(found: Findings) -> list[Finding]:
    """Return a finding for each attack at its largest size and each map that an attack is aimed at, the worst first."""
    clean = found.clean.value if found.clean else 1.0
    result = [
        Finding(
            accuracy_tone(h.robust.value, clean),
            f"{h.label} fools the model at {words.threat(h.norm, h.eps)}"
            + (", towards a given class" if h.targeted else ""),
            h.success,
            h.atlas,
        )
        for h in largest(found.attacks)
    ]
    atlas = {h.label: h.atlas for h in found.attacks}
    gaps = {(gap.label, gap.interpreter, gap.eps): gap for gap in leading(found.differences)}
    for s in found.shifts:
        if s.attacked == s.interpreter:
            gap = gaps.get((s.label, s.interpreter, s.eps))
            text = f"{s.label} changes the class and keeps the {s.interpreter} map at {words.threat(s.norm, s.eps)}"
            if gap:
                text += f"; {gap.baseline} keeps it in {words.percent(gap.plausible[1].value)}"
            tone, rate = (gain_tone(gap), gap.plausible[0]) if gap else (forged_tone(s.forged), s.forged)
            result.append(Finding(tone, text, rate, atlas.get(s.label, "")))
    return sorted(result, key=lambda f: (_RANK[f.tone], -f.rate.value))
