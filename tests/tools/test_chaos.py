"""The command that attacks the audit: its page is the page of its results, and its faults are what they say."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from random import Random

import pytest

from tools.chaos.children import CRASHED, REFUSED, in_child
from tools.chaos.faults import flip
from tools.chaos.hostile import mutate
from tools.chaos.page import page
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
