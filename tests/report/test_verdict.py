"""The words of the first screen, from numbers made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from underfire.audit.reading import MapShift, RobustAccuracy
from underfire.audit.summary import Difference, Findings
from underfire.records import Check, Interval
from underfire.report import verdict


def rate(value: float) -> Interval:
    return Interval(value, max(value - 0.1, 0.0), min(value + 0.1, 1.0), 100)


def shift(forged: float, attacked: str = "cam", interpreter: str = "cam") -> MapShift:
    return MapShift("adv2", "linf", 0.03, interpreter, attacked, rate(0.1), rate(0.8), rate(forged), {})


def findings(robust: float, *shifts: MapShift, checks: tuple[bool, ...] = (True,)) -> Findings:
    left = (RobustAccuracy("linf", 0.03, rate(robust), "pgd"), RobustAccuracy("linf", 0.01, rate(robust), "pgd"))
    asked = tuple(Check("more_steps", ok, 0.0, 0.0, "a sentence") for ok in checks)
    return Findings(rate(0.9), (), left, shifts, (), asked, (), 0, "")


@pytest.mark.parametrize(
    ("robust", "forged", "headline"),
    [
        (0.44, 0.5, "The model is easily fooled, and its explanations can be forged"),
        (0.46, 0.3, "The model can be fooled, and its explanations can sometimes be forged"),
        (0.82, 0.5, "The model withstands these attacks, but its explanations can be forged"),
        (0.82, 0.1, "The model withstands these attacks, and its explanations were not forged"),
        (0.0, 0.0, "The model is easily fooled, but its explanations were not forged"),
    ],
)
def test_headline(robust: float, forged: float, headline: str) -> None:
    assert verdict.judge(findings(robust, shift(forged))).headline == headline


def test_plain_attacks_do_not_clear_an_explanation() -> None:
    card = verdict.judge(findings(0.0, shift(0.0, attacked=""))).cards[1]
    assert (card.tone, card.answer) == ("none", "Not attacked")


def test_an_attack_on_another_map_says_nothing_about_this_one() -> None:
    card = verdict.judge(findings(0.0, shift(0.2), shift(0.9, attacked="cam", interpreter="gradient"))).cards[1]
    assert card.answer == "Not always"


@pytest.mark.parametrize(
    ("checks", "answer"), [((True, True), "Yes"), ((True, False), "With care"), ((), "Not checked")]
)
def test_belief(checks: tuple[bool, ...], answer: str) -> None:
    assert verdict.judge(findings(0.0, checks=checks)).cards[2].answer == answer


def test_of_equal_sizes_the_smallest_is_told() -> None:
    worst = verdict.worst_accuracy(findings(0.0).robust)
    assert worst is not None and worst.eps == 0.01


def gap(low: float, kept: float) -> Difference:
    overlap = Interval(low + 0.1, low, low + 0.2, 50)
    return Difference("adv2", "pgd", "linf", 0.03, "cam", rate(-0.1), overlap, (0.8, 0.3), (rate(kept), rate(0.2)))


@pytest.mark.parametrize(
    ("low", "kept", "answer", "severity"),
    [(0.3, 0.9, "No", "Serious"), (0.3, 0.4, "Not always", "Notable"), (-0.05, 0.9, "Yes", "Withstood")],
)
def test_a_map_is_forged_if_a_plain_attack_keeps_less_of_it(
    low: float, kept: float, answer: str, severity: str
) -> None:
    found = replace(findings(0.0, shift(0.9)), differences=(gap(low, kept),))
    assert verdict.judge(found).cards[1].answer == answer
    told = verdict.findings(found)[0]
    assert (told.severity, told.rate.value) == (severity, kept)
    assert told.words == "adv2 changes the class and keeps the cam map at L∞ eps 0.03; pgd keeps it in 20.0\u00a0%"
