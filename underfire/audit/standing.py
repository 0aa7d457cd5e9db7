"""Decide how far the figures of a run can be used: not at all, not to be believed, in part, or for a verdict.

The page, the command line, the gates and the results for programs all call `assess`, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from underfire.audit.credibility import Answers, Refusal, Rival
from underfire.audit.masking import BLIND
from underfire.audit.reading import AttackResult, RobustAccuracy
from underfire.audit.sizes import percent, size
from underfire.audit.transfer import TransferMean
from underfire.catalog import cards
from underfire.records import Check, Interval

Level = Literal["nothing", "blind", "partial", "open", "firm"]

_FOOLED, _WITHSTANDS = 0.5, 0.9
_SIGNIFICANCE = 0.05  # one-sided, of the test against guessing


@dataclass(frozen=True)
class Bound:
    """An upper bound of the accuracy under attack, from an attack that uses no gradient; masking cannot make it wrong.

    Attributes:
        attack: the name of the attack.
        norm: the norm of the size.
        eps: the size of the attack.
        success: share of the images classified correctly before the attack that it fools.
        left: the largest accuracy under attack that this success allows.
    """

    attack: str
    norm: str
    eps: float
    success: Interval
    left: float


@dataclass(frozen=True)
class Standing:
    """The degree to which the figures of a run can be used.

    Attributes:
        level: `"nothing"`: the figures say nothing about robustness; `"blind"`: checks say that the attacks were blind,
            so the figures cannot be believed; `"partial"`: a part of the plan has no result; `"open"`: no check was
            made, or a check says that the attacks may be too weak; `"firm"`: none of these.
        headline: the headline of a run without a verdict (`"nothing"`, `"blind"`, or attacks on other models only);
            empty otherwise.
        reasons: everything that limits the figures, one sentence each.
        gaps: those of the reasons that are about cells without a result.
        bound: for `"nothing"` and `"blind"`, the best success of an attack without a gradient; None if there is none.
    """

    level: Level
    headline: str = ""
    reasons: tuple[str, ...] = ()
    bound: Bound | None = None
    gaps: tuple[str, ...] = ()

    @property
    def believable(self) -> bool:
        """Return whether the figures say anything about robustness, as far as they go."""
        return self.level not in ("nothing", "blind")


FIRM = Standing("firm")


def accuracy_tone(left: float, clean: float) -> str:
    """Return the tone of a robust accuracy: bad below half of the clean accuracy, good at nine tenths of it or more.

    Where the clean accuracy is 0, nothing is left to attack, and the tone is `"none"`.
    """
    if not clean > 0:
        return "none"
    return "bad" if left < _FOOLED * clean else "warn" if left < _WITHSTANDS * clean else "good"


def worst_accuracy(found: Iterable[RobustAccuracy]) -> RobustAccuracy | None:
    """Return the lowest robust accuracy of any norm and any size above 0; None if there is none."""
    attacked = [f for f in found if f.eps > 0]
    return min(attacked, key=lambda f: (f.robust.value, f.norm, f.eps), default=None)


def guessing(right: int, n: int, classes: int) -> bool:
    """Return whether a guess among the classes is right on at least `right` of `n` images with a probability above 5 %.

    >>> guessing(2, 12, 10), guessing(5, 12, 10), guessing(0, 12, 1000)
    (True, False, True)
    """
    from scipy.stats import binom

    return bool(binom.sf(right - 1, n, 1 / max(classes, 2)) > _SIGNIFICANCE)


@dataclass(frozen=True)
class Evidence:
    """The figures of a run that its standing depends on; see `underfire.audit.summary.Findings`."""

    clean: Interval | None = None
    answers: Answers | None = None
    attacks: Sequence[AttackResult] = ()
    robust: Sequence[RobustAccuracy] = ()
    checks: Sequence[Check] = ()
    rivals: Sequence[Rival] = ()
    refused: Sequence[Refusal] = ()
    missing: int = 0
    planned: int = 0
    transferred: TransferMean | None = None  # the attack crafted on another model that fools most

    @property
    def worst(self) -> RobustAccuracy | None:
        """The lowest robust accuracy at a size above 0."""
        return worst_accuracy(self.robust)


def assess(found: Evidence) -> Standing:
    """Return how far the figures of a run can be used."""
    gaps, failed = tuple(_gaps(found)), [check for check in found.checks if not check.passed]
    weak = [_warning(failed, found.checks)] if failed else []
    weak += [
        f"{hit.label} at eps {size(hit.norm, hit.eps)} broke its limits on {percent(1 - hit.within)} of the images, "
        "which count as not fooled."
        for hit in found.attacks
        if hit.within < 1
    ]
    if found.transferred and not found.attacks:  # the run attacks other models only
        share = percent(found.transferred.success.value)
        headline = f"{'So far, t' if found.missing else 'T'}ransferred attacks fool up to {share} of the images"
        return Standing("partial" if gaps else "open", headline, (*gaps, *weak), None, gaps)
    if nothing := _headline_of_nothing(found):
        return Standing("nothing", nothing, (*gaps, *weak), _bound(found), gaps)
    if any(check.name in BLIND for check in failed) and found.worst and found.worst.robust.value > 0:
        blind = sum(check.name in BLIND for check in failed)
        say = "checks says" if blind == 1 else "checks say"
        headline = f"These numbers cannot be believed: {blind} of {len(found.checks)} {say} that the attacks were blind"
        if any(check.name == "gradients" and check.value >= 1 for check in failed):
            headline = "These numbers cannot be believed: the model has no gradient with respect to its input"
            weak.append("An attack that follows the gradient measures nothing on such a model.")
        return Standing("blind", headline, (*weak, *gaps), _bound(found), gaps)
    if gaps:
        return Standing("partial", "", (*gaps, *weak), None, gaps)
    if weak or not found.checks:
        return Standing("open", "", tuple(weak or ["No masking check has run: robust accuracies are upper bounds."]))
    return Standing("firm")


def _headline_of_nothing(found: Evidence) -> str:
    """Return the headline of a run whose figures say nothing about robustness; empty if they do."""
    clean, answers, worst = found.clean, found.answers, found.worst
    if clean is None or (worst is None and not found.robust and not found.refused):
        return "No attack aims at the prediction" if found.attacks else "The model has not been attacked yet"
    right = round(clean.value * clean.n)
    if right == 0 or (answers and guessing(right, clean.n, answers.classes)):
        return f"Nothing can be said: right on {right} of {clean.n}" + (", no better than guessing" if right else "")
    if answers and answers.given == 1 < answers.labels:
        return f"Nothing can be said: the same answer to all {clean.n} images"
    if worst is None:
        attacks = [entry for entry in found.refused if entry.kind == "attack"]
        if not found.robust:
            return f"Nothing can be said: {'the attack' if len(attacks) == 1 else 'no attack'} could " + (
                "not be run" if len(attacks) == 1 else "be run"
            )
        return "Nothing can be said: every attack had the size 0"
    low, high = (accuracy_tone(end, clean.value) for end in (worst.robust.low, worst.robust.high))
    if low == "bad" and high == "good":
        count = worst.robust.n
        return f"Nothing can be said: {count} {'image is' if count == 1 else 'images are'} too few"
    return ""


def _gaps(found: Evidence) -> list[str]:
    """Return one sentence for the cells without a result, and one for each method that could not be run."""
    sentences = []
    if found.missing:
        verb = "has" if found.missing == 1 else "have"
        sentences.append(f"The run is not finished: {found.missing} of {found.planned} cells {verb} no result.")
    for entry in found.refused:
        part = "" if entry.cells == entry.of else f" on {entry.cells} of {entry.of} parts of the data"
        sentences.append(f"{entry.name} could not be run{part}: {entry.reason.rstrip('.')}.")
    return sentences


def _warning(failed: Sequence[Check], checks: Sequence[Check]) -> str:
    """Return one sentence that names the failed checks."""
    names = ", ".join(check.name for check in failed)
    verb = "warns" if len(failed) == 1 else "warn"
    failure = f"{len(failed)} of {len(checks)} masking checks {verb} ({names})"
    return f"{failure}: the model may be weaker than these numbers say."


def _bound(found: Evidence) -> Bound | None:
    """Return the lowest accuracy that an attack without a gradient leaves, at any size above 0.

    None if all attacks together leave less: their successes hold, too, and say more.
    """
    if found.clean is None:
        return None
    black = {card.name for card in cards("attack") if card.facts.knowledge == "black-box"}
    bounds = [
        Bound(hit.label, hit.norm, hit.eps, hit.success, hit.robust.value)
        for hit in found.attacks
        if hit.attack in black and hit.eps > 0
    ]
    bounds += [
        Bound(rival.name, rival.norm, rival.eps, rival.success, found.clean.value * (1 - rival.success.value))
        for rival in found.rivals
        if rival.success.n
    ]
    least = min((bound for bound in bounds if bound.success.value > 0), key=lambda bound: bound.left, default=None)
    return None if least and found.worst and found.worst.robust.value < least.left else least
