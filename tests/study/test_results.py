"""From answers to figures: pooling, what is left out, what is undefined, and the page."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from underfire.errors import InputError
from underfire.measures import human
from underfire.study import checks, page, results
from underfire.study.store import Annotator, Answer


def people(n: int) -> list[Annotator]:
    return [Annotator(i, f"annotator {i}", f"token {i}") for i in range(n)]


def faithful(study: Any, n: int = 4, seconds: tuple[float, float] = (2.0, 1.0)) -> list[Answer]:
    """Annotators who always say what the model says, in so many seconds without and with explanations."""
    return [
        Answer(i, k, t.item, t.explained, t.practice, study.items[t.item].prediction, seconds[t.explained], None, False)
        for i in range(n)
        for k, t in enumerate(study.plan(i))
    ]


def test_faithful_annotators_take_in_all_there_is(made: Callable[..., Any]) -> None:
    study = made()
    found = results.evaluate(study, people(8), faithful(study, 8))
    assert found.pooled["without"].rate.value == pytest.approx(2 / 2)  # two bits of four balanced classes
    assert found.pooled["with"].rate.value == pytest.approx(2 / 1)
    assert found.rate.value.value == pytest.approx(1) and found.rate.value.n == 8
    assert found.pooled["with"].trust.value > 1  # the model errs, and its errors are followed
    assert found.pooled["with"].agreement.value == 1 and found.pooled["with"].n == 128
    assert [p.explained_first for p in found.people] == [False, True] * 4
    assert all(p.answered == p.of == 32 for p in found.people)
    for name in ("without", "with"):
        mean = sum(p.share[name] for p in found.people) / 8
        assert mean == pytest.approx(found.pooled[name].rate.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden": True}, "the page was hidden"),
        ({"seconds": 0.1}, "faster than 0.15 s"),
        ({"seconds": 61.0}, "slower than 60 s"),
        ({"seconds": 5.0, "server_seconds": 2.0}, "longer than the server measured"),
        ({"seconds": 5.0, "server_seconds": 4.5}, ""),
        ({"seconds": 5.0, "server_seconds": None}, ""),
    ],
)
def test_times_that_cannot_be_believed_are_left_out(made: Callable[..., Any], change: Any, reason: str) -> None:
    study = made()
    answers = faithful(study)
    place = next(i for i, a in enumerate(answers) if not a.practice)
    answers[place] = replace(answers[place], **change)
    found = results.evaluate(study, people(4), answers)
    assert found.left_out == ({reason: 1} if reason else {})
    assert sum(part.n for part in found.pooled.values()) == 128 - bool(reason)
    assert found.people[0].answered == 32


def test_practice_does_not_count(made: Callable[..., Any]) -> None:
    study = made()
    answers = faithful(study)
    wrong = [replace(a, answer=2, seconds=9.0) if a.practice else a for a in answers]
    assert results.evaluate(study, people(4), wrong) == results.evaluate(study, people(4), answers)


def test_nobody_and_one_annotator(made: Callable[..., Any]) -> None:
    study = made()
    nobody = results.evaluate(study, [], [])
    assert results.headline(nobody)[0] == "There are not enough answers yet"
    assert nobody.pooled["with"].why_rate and math.isnan(nobody.pooled["with"].rate.value)
    one = results.evaluate(study, people(1), faithful(study, 1))
    assert one.rate.why == one.pooled["with"].why_rate == "it takes 64 answers, and there are 16"
    assert results.headline(one)[0] == "There are not enough answers yet"
    assert any("1 of 1 annotators" in note or "0 of 1 annotators" in note for note in one.notes)
    joined = results.evaluate(study, people(2), faithful(study, 1))
    assert joined.people[1].answered == 0 and joined.people[1].share == {}


def test_without_labels_there_is_no_trust(made: Callable[..., Any]) -> None:
    study = made(labelled=False)
    found = results.evaluate(study, people(8), faithful(study, 8))
    assert found.pooled["with"].why_trust == found.trust.why == "the images have no labels"
    assert math.isnan(found.pooled["with"].trust.value) and found.rate.why == ""


def test_answers_to_another_study_are_refused(made: Callable[..., Any]) -> None:
    study = made()
    answers = [replace(a, answer=3) for a in faithful(study, 1)]
    with pytest.raises(InputError, match="belong to another study"):
        results.evaluate(study, people(1), answers)


def test_help_and_hindrance_are_told_apart(made: Callable[..., Any]) -> None:
    study = made()
    answers = faithful(study, 8, (1.0, 2.0))
    answers = [replace(a, seconds=a.seconds + 0.01 * (i % 7)) for i, a in enumerate(answers)]
    title, numbers = results.headline(results.evaluate(study, people(8), answers))
    assert title == "The explanations hinder people in predicting the model"
    assert "a difference of -0.9" in numbers


def random_keys(study: Any, n: int, seconds: float = 0.2) -> list[Answer]:
    """Annotators who press any key, in so many seconds."""
    draw, classes = random.Random(0), sorted(study.classes)
    return [replace(a, answer=draw.choice(classes), seconds=seconds) for a in faithful(study, n)]


def test_random_keys_get_no_rate_from_few_answers_and_none_to_speak_of_from_enough(made: Callable[..., Any]) -> None:
    study = made()
    few = results.evaluate(study, people(1), random_keys(study, 1))
    assert math.isnan(few.pooled["with"].rate.value) and math.isnan(few.people[0].figures["with"].plain)
    assert results.headline(few)[0] == "There are not enough answers yet"
    assert "withheld: it takes 64 answers" in page.render(few)
    enough = results.evaluate(study, people(8), random_keys(study, 8))
    assert enough.pooled["with"].rate.value < 0.1 / 0.2 and enough.pooled["with"].random
    assert results.headline(enough)[0] == "The answers cannot be told from random keys"
    assert "no more than random keys" in enough.pooled["with"].why_trust
    assert any("8 of 8 annotators" in note and "too fast" in note for note in enough.notes)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_enough_answers_of_random_keys_have_less_than_a_tenth_of_a_bit(classes: int) -> None:
    n, draw = checks.answers_needed(classes), torch.Generator().manual_seed(0)
    keys = torch.randint(classes, (100, n), generator=draw)
    bits = sorted(human.mutual_information(row, torch.arange(n) % classes, correction="jackknife") for row in keys)
    assert bits[94] < 0.1


def test_annotators_come_in_groups_and_give_enough_answers(made: Callable[..., Any]) -> None:
    assert [checks.answers_needed(k) for k in (2, 4, 10)] == [64, 64, 400]
    study = made(n=20)  # 10 answers of everybody in each condition
    assert checks.annotators_needed(study) == 8 and checks.annotators_needed(made(n=8, folder="s")) == 16


def test_withdrawals_are_a_note(made: Callable[..., Any]) -> None:
    study = made()
    found = results.evaluate(study, people(8), faithful(study, 8), withdrawn=2)
    assert "2 annotators have withdrawn; their answers are deleted." in found.notes


class Tags(HTMLParser):
    """What a page loads."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")]


def test_the_page_has_the_numbers_escapes_names_and_loads_nothing(made: Callable[..., Any]) -> None:
    study = made(model="<script>alert(1)</script>")
    persons = [replace(p, name=f"<i>{p.name}</i>") for p in people(8)]
    found = results.evaluate(study, persons, faithful(study, 8))
    source = page.render(found)
    assert results.headline(found)[0] in source
    assert "<i>annotator" not in source and "&lt;i&gt;annotator 0&lt;/i&gt;" in source and "<script" not in source
    assert Tags(source).loaded == []
    assert source.count('class="person"') == 8
    assert ">2.00<" in source and "+1.00" in source


def test_a_page_of_nothing_is_a_page_too(made: Callable[..., Any]) -> None:
    study = made(labelled=False)
    source = page.render(results.evaluate(study, [], []))
    assert "Nobody has taken part yet" in source and "The chart is drawn when" in source and "nan" not in source
    one = page.render(results.evaluate(study, people(1), faithful(study, 1)))
    assert "withheld: the images have no labels" in one and ">nan" not in one
