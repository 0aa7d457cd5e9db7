"""The verdict and the findings of the report, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from underfire.audit.aims import MAP_CHANGED, aims_at_prediction
from underfire.audit.blank_maps import say_blank
from underfire.audit.comparison import Difference, leading
from underfire.audit.quadrants import Quadrants, control_of
from underfire.audit.reading import AttackResult, RobustAccuracy, largest
from underfire.audit.standing import Bound, accuracy_tone, worst_accuracy
from underfire.audit.summary import Findings
from underfire.records import Interval
from underfire.report import transfers, words
from underfire.report.answers import Answer, accuracy, belief, capped, explanations, forgery, gain_tone, worst_shift

_HALF = 0.5  # the share of changed maps from which a finding is serious
_RANK = {"bad": 0, "warn": 1, "good": 2, "none": 3}
_SEVERITY = {"bad": "Serious", "warn": "Notable", "good": "Withstood", "none": "No verdict"}


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


def judge(found: Findings) -> Verdict:
    """Return the verdict on all findings."""
    standing, worst = found.standing, worst_accuracy(found.robust)
    gap = next(iter(leading(found.differences)), None)
    model = accuracy(found, worst)
    explanation = forgery(gap, standing) if gap else explanations(worst_shift(found.shifts), standing)
    cards = (model, explanation, belief(found))
    return Verdict(standing.headline or _headline(found, worst, explanation), _lead(found, worst, gap), cards)


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
    if standing.level == "nothing":
        return Markup(" ").join(parts)
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
    if found.transfer and (sentence := transfers.lead(found.transfer)):
        parts.append(sentence)
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


def findings(found: Findings) -> list[Finding]:
    """Return a finding for each attack at its largest size and each map that an attack is aimed at, the worst first."""
    clean, standing = found.clean.value if found.clean else 1.0, found.standing
    result = [
        Finding(
            capped(accuracy_tone(h.robust.value, clean) if h.eps > 0 and h.success.n else "none", standing),
            f"{h.label} {_outcome(h)} at {words.threat(h.norm, h.eps)}"
            + (", towards a given class" if h.targeted else ""),
            h.success,
            h.atlas,
        )
        for h in largest(found.attacks)
        if aims_at_prediction(h.quadrant)
    ]
    atlas = {h.label: h.atlas for h in found.attacks}
    gaps = {(gap.label, gap.interpreter, gap.eps): gap for gap in leading(found.differences)}
    for s in found.shifts:
        if s.forges:
            gap = gaps.get((s.label, s.interpreter, s.eps))
            text = f"{s.label} changes the class and keeps the {s.interpreter} map at {words.threat(s.norm, s.eps)}"
            text += (
                f"; {gap.baseline} keeps it in {words.percent(gap.plausible[1].value)}"
                if gap
                else ("; not compared with a plain attack")
            )
            tone, rate = (gain_tone(gap), gap.plausible[0]) if gap else ("none", s.plausible)
            result.append(Finding(capped(tone, standing), text, rate, atlas.get(s.label, "")))
    result += [_moved(q, found, atlas.get(q.label, "")) for q in largest(found.quadrants) if q.changes_map]
    return sorted(result, key=lambda f: (_RANK[f.tone], -f.rate.value))


def _moved(q: Quadrants, found: Findings, atlas: str) -> Finding:
    """Return the finding on an attack that wants to keep the prediction and to change the map, against noise."""
    rate, control = q.shares[MAP_CHANGED], control_of(q, found.quadrants)
    text = f"{q.label} keeps the class and changes the {q.interpreter} map at {words.threat(q.norm, q.eps)}"
    if control is None:
        return Finding("none", f"{text}; not compared with random noise", rate, atlas)
    noise = control.shares[MAP_CHANGED]
    tone = "good" if rate.low <= noise.high else "bad" if rate.value >= _HALF else "warn"
    return Finding(
        capped(tone, found.standing), f"{text}; {control.label} in {words.percent(noise.value)}", rate, atlas
    )


def _outcome(hit: AttackResult) -> str:
    """Return the result of an attack in words."""
    if hit.success.n == 0:
        return "had no image to attack"
    return "fools the model" if hit.success.value else "fools no image"
