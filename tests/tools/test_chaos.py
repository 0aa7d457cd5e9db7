"""The command that attacks the audit: its page is the page of its results, and its faults are what they say."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from random import Random

import pytest

from tools.chaos.__main__ import experiments
from tools.chaos.children import CRASHED, REFUSED, in_child
from tools.chaos.faults import flip
from tools.chaos.hostile import mutate
from tools.chaos.page import ROWS, page
from tools.chaos.parts import rounds, run_parts
from underfire.errors import InputError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_that_of_the_results() -> None:
    results = json.loads((DOCS / "reliability.json").read_text(encoding="utf-8"))
    assert page(results) == (DOCS / "reliability.md").read_text(encoding="utf-8"), "make chaos writes both"


def test_a_flip_changes_one_bit() -> None:
    draw = Random(0)
    for _ in range(100):
        changed = flip(bytes(20), draw)
        assert sum(byte.bit_count() for byte in changed) == 1
        assert len(changed) == 20


def test_mutations_differ_and_depend_on_the_seed_alone() -> None:
    draws = [Random(3), Random(3)]
    first, again = ([mutate(draw) for _ in range(20)] for draw in draws)
    assert first == again
    assert len(set(first)) > 15


def _refuse() -> None:
    raise InputError("no")


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [(lambda: [1], 0, ""), (_refuse, REFUSED, "no\n"), (lambda: 1 / 0, CRASHED, "ZeroDivisionError")],
)
def test_a_child_ends_as_its_function_does(function: object, code: int, said: str) -> None:
    done = in_child(function)  # type: ignore[arg-type]
    assert done.code == code
    assert said in done.said
    assert done.value == ([1] if code == 0 else None)


def test_a_child_can_be_killed_and_limited(tmp_path: Path) -> None:
    assert in_child(lambda: time.sleep(60), kill=(0.05, signal.SIGTERM)).code == -signal.SIGTERM
    done = in_child(lambda: (tmp_path / "a").write_bytes(bytes(5000)), limits={resource.RLIMIT_FSIZE: 1000})
    assert done.code == CRASHED
    assert (tmp_path / "a").stat().st_size == 1000


def test_a_part_that_fails_or_is_interrupted_costs_no_other() -> None:
    def fails(draw: Random) -> None:
        raise RuntimeError("no disk")

    def interrupted(draw: Random) -> None:
        raise KeyboardInterrupt

    kept, said = [], list[str]()
    parts = {"fails": fails, "one": lambda draw: draw.random(), "stopped": interrupted, "after": lambda draw: 0}
    left = run_parts(parts, 3, said.append, lambda name, result, seconds: kept.append((name, result)))
    assert kept == [("one", Random("3 one").random())]
    assert left == ["fails", "stopped", "after"]
    assert "no disk" in said[1] and said[-1].endswith("--only fails stopped after")


def test_a_part_has_its_least_number_of_rounds() -> None:
    assert list(rounds(0, least=3)) == [0, 1, 2]


def test_a_child_that_fails_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        _ = in_child(lambda: 1 / 0).answer


def test_every_part_of_the_page_is_measured() -> None:
    assert set(ROWS) < set(experiments(1.0))
