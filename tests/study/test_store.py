"""Answers are on the disk at once, and stay."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from underfire.errors import InputError
from underfire.study.store import FILE, Answer, AnswerStore, NameTaken, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    opened = AnswerStore(tmp_path)
    yield opened
    opened.close()


def answer(trial: int = 0, seconds: float = 1.5, annotator: int = 0) -> Answer:
    return Answer(annotator, trial, 3, True, False, 5, seconds, None, False)


def test_what_was_kept_is_read_again(store: AnswerStore, tmp_path: Path) -> None:
    ada = store.join("  Ada   Lovelace ")
    assert (ada.number, ada.name) == (0, "Ada Lovelace")
    assert store.add(answer(0), answer(1, 0.25)) == 2
    again = AnswerStore(tmp_path)
    assert again.find(ada.token) == ada and again.annotators() == [ada] and again.done(ada) == 2
    assert again.answers() == [answer(0), answer(1, 0.25)]
    again.close()


def test_the_first_answer_stays(store: AnswerStore) -> None:
    store.join("Ada")
    assert (store.add(answer()), store.add(answer(seconds=9.0))) == (1, 0)
    assert store.answers() == [answer()]


def test_rows_are_only_added(store: AnswerStore, tmp_path: Path) -> None:
    store.join("Ada")
    store.add(answer())
    line = sqlite3.connect(tmp_path / FILE)
    for command in ("UPDATE answers SET seconds = 1", "DELETE FROM answers"):
        with pytest.raises(sqlite3.IntegrityError, match="answers are never"):
            line.execute(command)
    line.close()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e6])
def test_a_time_that_cannot_be_is_refused(store: AnswerStore, seconds: float) -> None:
    with pytest.raises(InputError, match="seconds .* positive"):
        store.add(answer(seconds=seconds))
    assert store.answers() == []


def test_a_name_is_one_persons(store: AnswerStore) -> None:
    store.join("Ada")
    with pytest.raises(NameTaken, match="already takes part as 'ada'"):
        store.join("ada")
    assert store.join("Grace").number == 1
    wrong = {
        "   ": "is empty",
        "x" * 41: "has 41 characters",
        "a\u202eb": "U.202E",
        "a\x00b": "U.0000",
        "\ud800": "U.D800",
    }
    for name, says in wrong.items():
        with pytest.raises(InputError, match=f"{says}.*1 to 40"):
            store.join(name)
    assert store.find("nobody") is None


def test_a_withdrawal_leaves_nothing_of_the_annotator(store: AnswerStore, tmp_path: Path) -> None:
    ada, grace = store.join("Ada Lovelace"), store.join("Grace")
    store.add(answer(0), answer(1), answer(0, annotator=grace.number))
    code = store.completion_code(ada)
    assert code == store.completion_code(ada) == store.annotators()[0].code
    assert store.withdraw(ada) == 2 and store.withdraw(ada) == 0 and store.withdrawals() == 1
    assert [p.name for p in store.annotators()] == ["Grace"] and store.answers() == [answer(0, annotator=1)]
    assert store.join("Joan").number == 0 and store.annotators()[0].code == ""
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [text for text in ("Ada Lovelace", ada.token, code) if text.encode() in written]


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from underfire.study.store import Answer, AnswerStore
store = AnswerStore(Path(sys.argv[1]))
store.join("Ada")
for trial in range(10_000):
    store.add(Answer(0, trial, 3, True, False, 5, 1.5, None, False))
    print(trial, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(5)][-1]
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    store = AnswerStore(tmp_path)
    kept = [a.trial for a in store.answers()]
    store.close()
    assert kept == list(range(len(kept))) and len(kept) > told


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("hello, I am a text and not a database at all" * 40)
    with pytest.raises(StoreError, match="cannot use .*answers.sqlite"):
        AnswerStore(tmp_path)


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE answers (who TEXT, what TEXT)",
        "CREATE TABLE annotators (number INTEGER, annotator INTEGER); CREATE TABLE answers (trial INTEGER)",
        "CREATE VIEW answers AS SELECT 1 AS annotator",
    ],
)
def test_the_database_of_another_program_is_refused_when_it_is_opened(tmp_path: Path, script: str) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript(script)
    with pytest.raises(StoreError, match="cannot use .*answers.sqlite") as caught:
        AnswerStore(tmp_path)
    assert "\n" not in str(caught.value)


def test_values_of_another_type_are_refused(store: AnswerStore, tmp_path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("INSERT INTO answers VALUES (0, 0, 0, 0, 0, 'five', 1.0, NULL, 0, '')")
        database.commit()
    with pytest.raises(StoreError, match="five"):
        AnswerStore(tmp_path)


def test_a_file_that_is_spoiled_later_is_one_kind_of_error(store: AnswerStore, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("DROP TRIGGER answers_of_annotators_are_kept")
        database.execute("DROP TABLE answers")
    for use in (store.answers, lambda: store.add(answer())):
        with pytest.raises(StoreError, match="no such table"):
            use()
