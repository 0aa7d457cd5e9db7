"""Who sees what: counterbalancing, likeness of the halves, and what is written and read again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from underfire.errors import InputError
from underfire.study.design import BREAK_AFTER, choices_of, read_study


def counted(study: Any, annotator: int) -> list[Any]:
    return [trial for trial in study.plan(annotator) if not trial.practice]


def test_everybody_sees_every_image_once_and_half_of_them_explained(made: Callable[..., Any]) -> None:
    study = made()
    for annotator in range(8):
        trials = counted(study, annotator)
        assert sorted(t.item for t in trials) == list(range(32))
        assert sum(t.explained for t in trials) == 16
        assert len({t.explained for t in trials[:16]}) == 1  # one block, then the other
        assert sorted(t.item for t in study.plan(annotator) if t.practice) == [32, 33, 34, 35]


def test_four_annotators_balance_order_and_halves(made: Callable[..., Any]) -> None:
    study = made()
    for group in range(3):
        plans = [counted(study, 4 * group + i) for i in range(4)]
        assert sum(plan[0].explained for plan in plans) == 2
        seen = Counter((t.item, t.explained) for plan in plans for t in plan)
        assert set(seen.values()) == {2}  # every image twice with and twice without
        first = Counter((t.item, t.explained) for plan in plans for t in plan[:16])
        assert set(first.values()) == {1}  # and each of these once in the first block


def test_the_halves_are_alike(made: Callable[..., Any]) -> None:
    study = made(n=40)
    for annotator in (0, 4, 8):
        for explained in (False, True):
            items = [study.items[t.item] for t in counted(study, annotator) if t.explained is explained]
            assert set(Counter(item.prediction for item in items).values()) == {5}
            assert abs(sum(i.wrong for i in items) - sum(i.wrong for i in study.items[:40]) / 2) <= 2


def test_the_order_is_one_annotators_own_and_always_the_same(made: Callable[..., Any]) -> None:
    study = made()
    assert study.plan(3) == read_study(study.folder).plan(3)
    assert [t.item for t in study.plan(0)] != [t.item for t in study.plan(4)]


def test_blocks_begin_with_practice_and_have_breaks(made: Callable[..., Any]) -> None:
    study = made(n=4 * BREAK_AFTER)
    before = [(i, trial.before) for i, trial in enumerate(study.plan(0)) if trial.before]
    block = 2 + 2 * BREAK_AFTER
    one = [(0, "practice"), (2, "block"), (2 + BREAK_AFTER, "break")]
    assert before == one + [(block + i, word) for i, word in one]


def test_keys_are_digits_that_are_names_or_in_the_order_of_the_keyboard() -> None:
    assert [c.key for c in choices_of({3: "3", 0: "0", 7: "7"})] == ["0", "3", "7"]
    assert [c.key for c in choices_of({i: f"class {i}" for i in range(10)})] == list("1234567890")


def test_a_study_is_read_as_it_was_written(made: Callable[..., Any]) -> None:
    study = made()
    assert read_study(study.folder) == study


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no study in"), ("{", "is not JSON"), ("[]", "is damaged"), ('{"schema": 99}', "another version")],
)
def test_what_is_no_study_is_said(made: Callable[..., Any], content: str | None, says: str) -> None:
    file = made().folder / "study.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(InputError, match=says):
        read_study(file.parent)


def test_a_damaged_item_is_said(made: Callable[..., Any]) -> None:
    file = made().folder / "study.json"
    content = json.loads(file.read_text())
    del content["items"][0]["prediction"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged: .* not a study"):
        read_study(file.parent)
