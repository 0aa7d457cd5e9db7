"""What a run allows to be said, from figures made by hand: no verdict on chance, on blind attacks or on a part."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from underfire.audit.credibility import Answers, Refusal, Rival
from underfire.audit.reading import AttackResult, RobustAccuracy
from underfire.audit.standing import Evidence, accuracy_tone, assess, guessing
from underfire.measures.statistics import clopper_pearson
from underfire.records import Check

FINE = Check("beats_noise", True, 0.0, 0.0, "")


def evidence(right: int, n: int, held: int, eps: float = 0.1, classes: int = 10, **changes: Any) -> Evidence:
    """A run in which `held` of `n` images withstand one attack."""
    robust = (RobustAccuracy("linf", eps, clopper_pearson(held, n), "pgd"),)
    known = {"clean": clopper_pearson(right, n), "answers": Answers(classes, 3, 3), "robust": robust, "checks": [FINE]}
    return Evidence(**{**known, **changes})  # type: ignore[arg-type]


def test_a_finished_run_with_checks_that_pass_is_firm() -> None:
    found = assess(evidence(95, 100, 90))
    assert (found.level, found.headline, found.reasons, found.believable) == ("firm", "", (), True)


@pytest.mark.parametrize(
    ("right", "n", "classes"),
    [(0, 12, 10), (2, 12, 10), (0, 1, 1000), (4, 6, 2), (12, 100, 10), (1, 1, 10)],
)
def test_no_verdict_without_an_accuracy_above_chance_at_any_n(right: int, n: int, classes: int) -> None:
    guessed = right == 0 or guessing(right, n, classes)
    found = assess(evidence(right, n, right, classes=classes))
    assert found.level == "nothing" and not found.believable
    if guessed:
        assert f"right on {right} of {n}" in found.headline


@pytest.mark.parametrize(
    ("right", "n", "classes", "chance"),
    [
        (3, 12, 10, True),
        (4, 12, 10, False),
        (1, 1, 1000, False),
        (4, 4, 2, True),
        (5, 5, 2, False),
        (15, 100, 10, True),
    ],
)
def test_chance_is_the_exact_binomial_at_5_per_cent(right: int, n: int, classes: int, chance: bool) -> None:
    assert guessing(right, n, classes) is chance


def test_the_same_answer_to_every_image_is_no_classifier() -> None:
    assert "same answer" in assess(evidence(90, 100, 90, answers=Answers(10, 1, 3))).headline
    assert assess(evidence(90, 100, 90, answers=Answers(10, 1, 1))).level == "firm"  # all images of one class


@pytest.mark.parametrize(("n", "level"), [(2, "nothing"), (5, "nothing"), (12, "firm")])
def test_an_interval_from_fooled_to_withstands_is_no_verdict(n: int, level: str) -> None:
    assert assess(evidence(n, n, n)).level == level
    assert assess(evidence(n, n, 0)).level == "firm"  # every image was fooled, which is a fact


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clean": None, "robust": ()}, "not been attacked"),
        ({"robust": ()}, "not been attacked"),
        ({"eps": 0.0}, "size 0"),
        ({"robust": (), "refused": [Refusal("attack", "PGD", "no gradient", 1, 1)]}, "the attack could not be run"),
        (
            {"robust": (), "refused": [Refusal("attack", a, "no gradient", 1, 1) for a in "ab"]},
            "no attack could be run",
        ),
    ],
)
def test_a_run_without_an_attack_says_nothing(changes: dict[str, Any], said: str) -> None:
    found = assess(evidence(12, 12, 12, **changes))
    assert found.level == "nothing" and said in found.headline


@pytest.mark.parametrize(("name", "level"), [("beats_noise", "blind"), ("more_steps", "blind"), ("restarts", "open")])
def test_a_check_that_says_blind_comes_before_every_verdict(name: str, level: str) -> None:
    failed = Check(name, False, 1.0, 0.0, "")
    found = assess(evidence(100, 100, 95, checks=[FINE, failed]))
    assert found.level == level and name in found.reasons[0]
    assert found.headline.startswith("These numbers cannot be believed" if level == "blind" else "")
    # where nothing withstands, no blindness can hide a weaker model
    assert assess(evidence(100, 100, 0, checks=[FINE, failed])).level == "open"


def test_a_model_without_any_gradient_is_said_to_have_none() -> None:
    dead = Check("gradients", False, 1.0, 0.05, "")
    found = assess(evidence(100, 100, 95, checks=[dead]))
    assert found.headline == "These numbers cannot be believed: the model has no gradient with respect to its input"


def hit(attack: str, held: int, eps: float = 0.1) -> AttackResult:
    known = {
        "label": attack.upper(),
        "attack": attack,
        "norm": "linf",
        "eps": eps,
        "robust": clopper_pearson(held, 100),
        "within": 1.0,
    }
    known["success"] = clopper_pearson(100 - held, 100)
    return AttackResult(**{field.name: known.get(field.name) for field in dataclasses.fields(AttackResult)})  # type: ignore[arg-type]


def test_the_best_attack_without_a_gradient_is_the_bound_that_holds() -> None:
    failed = Check("beats_black_box", False, 1.0, 0.0, "")
    rivals = [
        Rival("NES", "linf", 0.1, clopper_pearson(25, 50)),
        Rival("random noise", "linf", 0.1, clopper_pearson(1, 50)),
    ]
    found = assess(evidence(90, 100, 80, checks=[failed], rivals=rivals)).bound
    assert found is not None and (found.attack, found.left, found.success.n) == ("NES", 0.45, 50)
    attacks = [hit("pgd", 5), hit("square", 40), hit("square", 10, eps=0.0)]
    found = assess(evidence(90, 100, 80, checks=[failed], rivals=rivals, attacks=attacks)).bound
    assert found is not None and (found.attack, found.left) == ("SQUARE", 0.4)
    assert assess(evidence(90, 100, 30, checks=[failed], rivals=rivals)).bound is None  # all attacks leave 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"missing": 2, "planned": 9},
        {"refused": [Refusal("attack", "PGD", "the model has no gradient", 2, 4)]},
    ],
)
def test_a_part_of_the_plan_is_said_to_be_one(changes: dict[str, Any]) -> None:
    found = assess(evidence(95, 100, 90, **changes))
    assert found.level == "partial" and found.believable
    assert "2 of " in found.reasons[0]


def test_without_a_check_the_run_is_open() -> None:
    assert assess(evidence(95, 100, 90, checks=())).level == "open"


def test_nothing_right_leaves_nothing_to_withstand() -> None:
    assert accuracy_tone(0.0, 0.0) == "none"
    assert [accuracy_tone(left, 0.9) for left in (0.44, 0.46, 0.82)] == ["bad", "warn", "good"]


def test_an_attack_that_broke_its_limits_shows_no_robustness() -> None:
    (attack,) = [dataclasses.replace(hit("pgd", 90), within=0.25)]
    found = assess(evidence(95, 100, 90, attacks=[attack]))
    assert found.level == "open" and "75\u00a0%" in found.reasons[0]
