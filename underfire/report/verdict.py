"""The verdict of the report, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from underfire.audit.blank_maps import say_blank
from underfire.audit.comparison import Difference, leading
from underfire.audit.reading import RobustAccuracy
from underfire.audit.standing import Bound, accuracy_tone, worst_accuracy
from underfire.audit.summary import Findings
from underfire.report import transfers, words
from underfire.report.answers import Answer, accuracy, belief, explanations, forgery, worst_shift


@dataclass(frozen=True)
class Verdict:
    """The headline with its colour, two or three sentences about it, and the three questions with their answers.

    `tone` is `"bad"` if checks say that the attacks were blind; otherwise the headline has no colour of its own.
    """

    headline: str
    tone: str
    lead: Markup
    cards: tuple[Answer, Answer, Answer]


def judge(found: Findings) -> Verdict:
    """Return the verdict on all findings."""
    standing, worst = found.standing, worst_accuracy(found.robust)
    gap = next(iter(leading(found.differences)), None)
    model = accuracy(found, worst)
    explanation = forgery(gap, standing) if gap else explanations(worst_shift(found.shifts), standing)
    cards = (model, explanation, belief(found))
    headline = standing.headline or _headline(found, worst, explanation)
    return Verdict(headline, "bad" if standing.level == "blind" else "", _lead(found, worst, gap), cards)


def _headline(found: Findings, worst: RobustAccuracy | None, explanation: Answer) -> str:
    """Return the headline of a run that has a verdict."""
    clean = found.clean.value if found.clean else 1.0
    tone = accuracy_tone(worst.robust.value, clean) if worst else "none"
    withstands = {
        "firm": "The model withstands these attacks",
        "open": "The model withstands attacks that " + ("may be too weak" if found.checks else "were not checked"),
        "partial": "So far, the model withstands these attacks",
    }
    if found.standing.level == "partial" and not found.missing:
        withstands["partial"] = "The model withstands the attacks that could be run"
    first = {
        "bad": "The model is easily fooled",
        "warn": "The model can be fooled",
        "good": withstands.get(found.standing.level, ""),
        "none": "The model has not been attacked yet",
    }[tone]
    aimed = any(shift.forges for shift in found.shifts)
    second = {
        "bad": "its explanations can be forged",
        "warn": "its explanations can sometimes be forged",
        "good": "its explanations were not forged",
        "none": "nothing shows whether its explanations can be forged"
        if aimed
        else "nothing was aimed at its explanations",
    }[explanation.verdict]
    bridge = "and" if (tone == "good") == (explanation.verdict == "good") else "but"
    return f"{first}, {bridge} {second}"


def _lead(found: Findings, worst: RobustAccuracy | None, gap: Difference | None) -> Markup:
    """Return the sentences under the headline; limits of the figures come first."""
    standing, checks = found.standing, found.checks
    parts = [escape(reason) for reason in standing.reasons if reason not in standing.gaps]
    if standing.headline and standing.bound:
        parts.insert(0, _holds(standing.bound))
    parts += [escape(sentence) for sentence in say_blank(found.blank)]
    transferred = transfers.lead(found.transfer) if found.transfer else Markup("")
    if standing.level == "nothing":
        return Markup(" ").join([*parts, transferred]).strip()
    if worst and found.answered:
        parts.append(
            Markup(
                "The images have no labels. Under the worst attack ({}), the model keeps its own answer on "
                "<strong>{}</strong> of them."
            ).format(words.threat(worst.norm, worst.eps), words.percent(worst.robust.value))
        )
    elif found.clean and worst:
        parts.append(
            Markup(
                "Without an attack, the model is right on <strong>{}</strong> of the images; under the worst attack "
                "({}), on <strong>{}</strong>{}."
            ).format(
                words.percent(found.clean.value),
                words.threat(worst.norm, worst.eps),
                words.percent(worst.robust.value),
                ", which is an upper bound only" if standing.level == "blind" else "",
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
    parts += [transferred] if transferred else []
    if checks and all(check.passed for check in checks) and standing.level != "open":
        parts.append(escape(f"All {len(checks)} checks on the attacks pass: no sign that they were too weak."))
    return Markup(" ").join(parts)


def _holds(bound: Bound) -> Markup:
    """Return a sentence on the best success of an attack without a gradient, which holds in any case."""
    return Markup(
        "What holds: {}, which uses no gradient, fools <strong>{}</strong> of {} images at {}, so under attack the "
        "model is right on at most <strong>{}</strong>."
    ).format(
        bound.attack,
        words.percent(bound.success.value),
        bound.success.n,
        words.threat(bound.norm, bound.eps),
        words.percent(bound.left),
    )
