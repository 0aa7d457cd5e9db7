"""The words of the first screen, from numbers made by hand."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from underfire.audit.aims import MAP_CHANGED, QUADRANTS
from underfire.audit.comparison import Difference
from underfire.audit.map_shifts import MapShift
from underfire.audit.quadrants import Quadrants
from underfire.audit.reading import AttackResult, RobustAccuracy
from underfire.audit.standing import Bound, Standing, worst_accuracy
from underfire.audit.summary import Findings
from underfire.records import Check, Interval
from underfire.report import verdict
from underfire.report.findings import Finding, groups
from underfire.report.findings import findings as told_findings


def rate(value: float) -> Interval:
    return Interval(value, max(value - 0.1, 0.0), min(value + 0.1, 1.0), 100)


def shift(forged: float, attacked: str = "cam", interpreter: str = "cam") -> MapShift:
    return MapShift("adv2", "linf", 0.03, interpreter, attacked, rate(0.1), rate(0.8), rate(forged), {})


def findings(robust: float, *shifts: MapShift, checks: tuple[bool, ...] = (True,)) -> Findings:
    left = (RobustAccuracy("linf", 0.03, rate(robust), "pgd"), RobustAccuracy("linf", 0.01, rate(robust), "pgd"))
    asked = tuple(Check("more_steps", ok, 0.0, 0.0, "a sentence") for ok in checks)
    return Findings(rate(0.9), (), left, shifts, (), asked, (), 0, "")


def gap(low: float, kept: float, n: int = 50) -> Difference:
    overlap = Interval(low + 0.1, low, low + 0.2, n)
    return Difference("adv2", "pgd", "linf", 0.03, "cam", rate(-0.1), overlap, (0.8, 0.3), (rate(kept), rate(0.2)))


@pytest.mark.parametrize(
    ("robust", "low", "kept", "headline"),
    [
        (0.44, 0.3, 0.5, "The model is easily fooled, and its explanations can be forged"),
        (0.46, 0.3, 0.3, "The model can be fooled, and its explanations can sometimes be forged"),
        (0.82, 0.3, 0.5, "The model withstands these attacks, but its explanations can be forged"),
        (0.82, -0.1, 0.9, "The model withstands these attacks, and its explanations were not forged"),
        (0.0, -0.1, 0.0, "The model is easily fooled, but its explanations were not forged"),
    ],
)
def test_headline(robust: float, low: float, kept: float, headline: str) -> None:
    found = replace(findings(robust, shift(0.5)), differences=(gap(low, kept),))
    assert verdict.judge(found).headline == headline


@pytest.mark.parametrize(("attacked", "answer"), [("", "Not attacked"), ("cam", "Not compared")])
def test_without_a_comparison_no_map_is_called_forged(attacked: str, answer: str) -> None:
    found = findings(0.0, shift(1.0, attacked=attacked))
    told = verdict.judge(found)
    assert "forged" not in told.headline.replace("nothing shows whether its explanations can be forged", "")
    assert (told.cards[1].tone, told.cards[1].answer) == ("none", answer)
    assert {f.tone for f in told_findings(found)} <= {"none"}


def test_too_few_pairs_are_no_verdict_on_maps() -> None:
    card = verdict.judge(replace(findings(0.0, shift(0.5)), differences=(gap(0.3, 0.9, n=5),))).cards[1]
    assert (card.tone, card.answer) == ("none", "Cannot be said")


BOUND = Bound("NES", "linf", 8 / 255, Interval(0.5, 0.36, 0.64, 50), 0.45)


@pytest.mark.parametrize(
    "standing",
    [
        Standing("nothing", "Nothing can be said: right on 0 of 12"),
        Standing("blind", "These numbers cannot be believed: 4 of 8 checks say so", ("4 of 8 warn.",), BOUND),
        Standing("partial", "", ("The run is not finished: 3 of 9 cells have no result.",)),
        Standing("open", "", ("1 of 8 checks warns.",)),
    ],
)
def test_no_green_and_no_withstood_unless_the_run_is_firm(standing: Standing) -> None:
    known = {f.name: None for f in fields(AttackResult)}
    known |= {"label": "PGD", "norm": "linf", "eps": 0.03, "robust": rate(0.9), "success": rate(0.0), "atlas": ""}
    found = findings(0.9, shift(0.0), checks=(True, False))
    found = replace(found, attacks=(AttackResult(**known),), differences=(gap(-0.1, 0.9),), standing=standing)  # type: ignore[arg-type]
    told = verdict.judge(found)
    tones = [card.tone for card in told.cards] + [tone for card in told.cards for tone in card.pips]
    assert "good" not in tones + [f.tone for f in told_findings(found)]
    assert "Withstood" not in [f.severity for f in told_findings(found)]
    assert "withstands these attacks, and" not in told.headline
    if standing.headline:
        assert told.headline == standing.headline
    blind = standing.level == "blind"
    assert told.tone == ("bad" if blind else "")
    assert all(f.words.startswith("The attacks were blind") is blind for f in told_findings(found))
    if blind:
        assert told.lead.startswith("What holds: NES")
        assert told.cards[0].answer == f"At most 45.0{chr(160)}%"
        assert (told.cards[2].tone, told.cards[2].answer) == ("bad", "No")


def test_what_an_attack_did_stays_a_fact_where_checks_fail() -> None:
    blind = Standing("blind", "These numbers cannot be believed", (), BOUND)
    found = replace(findings(0.2, shift(0.0)), differences=(gap(0.3, 0.9),), standing=blind)
    assert [card.tone for card in verdict.judge(found).cards] == ["bad", "bad", "bad"]
    assert verdict.judge(found).cards[0].answer == f"At most 20.0{chr(160)}%"  # lower than what NES leaves


@pytest.mark.parametrize(
    ("checks", "answer"), [((True, True), "Yes"), ((True, False), "With care"), ((), "Not checked")]
)
def test_belief(checks: tuple[bool, ...], answer: str) -> None:
    assert verdict.judge(findings(0.0, checks=checks)).cards[2].answer == answer


def test_of_equal_sizes_the_smallest_is_told() -> None:
    worst = worst_accuracy(findings(0.0).robust)
    assert worst is not None and worst.eps == 0.01


@pytest.mark.parametrize(
    ("low", "kept", "answer", "severity"),
    [
        (0.3, 0.9, "90.0\u00a0% of the images", "Serious"),
        (0.3, 0.4, "40.0\u00a0% of the images", "Notable"),
        (-0.05, 0.9, "90.0\u00a0% of the images, not significantly more than after a plain attack", "Withstood"),
    ],
)
def test_a_map_is_forged_if_a_plain_attack_keeps_less_of_it(
    low: float, kept: float, answer: str, severity: str
) -> None:
    found = replace(findings(0.0, shift(0.9)), differences=(gap(low, kept),))
    card = verdict.judge(found).cards[1]
    assert card.answer == f"The map hides the attack in {answer}"
    assert "yes" not in card.answer.lower() and "No" not in card.answer  # to which question?
    told = told_findings(found)[0]
    assert (told.severity, told.rate.value) == (severity, kept)
    assert told.words == "adv2 changes the class and keeps the cam map at L∞ eps 0.03; pgd keeps it in 20.0\u00a0%"


def test_without_labels_no_accuracy_is_claimed() -> None:
    told = verdict.judge(replace(findings(0.8), answered=True))
    assert "keeps its own answer" in told.lead and "is right" not in told.lead
    assert "right" not in told.cards[0].question


def one(label: str, value: float, tone: str = "bad", event: str = "fools", place: str = "L∞ eps 8/255") -> Finding:
    return Finding(tone, f"{label} fools the model at {place}", rate(value), "", event, label, place)


def test_findings_that_say_the_same_are_one() -> None:
    made = [one("a", 0.9), one("b", 0.8), one("c", 0.7, event="keeps map"), one("d", 0.1, tone="warn")]
    found = groups(made)
    assert [len(group.members) for group in found] == [2, 1, 1]
    assert found[0].words == "2 attacks fool the model at L∞ eps 8/255"
    assert found[0].spread == "80.0\u00a0% to 90.0\u00a0%"
    assert found[1].words == made[2].words  # one alone keeps its sentence
    assert groups([one("a", 0.9), one("b", 0.9, place="L2 eps 1")])[0].words == "2 attacks fool the model"


def test_two_images_change_no_map_significantly() -> None:
    few = {name: Interval(0.5, 0.01, 0.99, 2) for name in QUADRANTS}
    sides = [
        Quadrants(label, "linf", 0.03, "cam", "cam", aim, few)
        for label, aim in (("a", MAP_CHANGED), ("b", "both kept"))
    ]
    (told,) = told_findings(replace(findings(0.9), quadrants=tuple(sides)))
    assert (told.tone, told.severity) == ("none", "No verdict")
