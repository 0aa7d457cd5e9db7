"""Store the answers of a study in one SQLite file, to which rows are only added.

Every answer is on the disk before the annotator sees the next image, so nothing is lost if the server, the browser or
the machine stops. The study determines the order of an annotator's trials; an annotator who returns continues with the
first trial that has no answer.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from underfire.errors import InputError, UnderfireError

FILE = "answers.sqlite"
_NAME = 40  # the longest name, in characters
_SECONDS = 86_400.0  # times must be below this: one day
_TABLES = """
CREATE TABLE IF NOT EXISTS annotators (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, token TEXT NOT NULL UNIQUE, joined TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS answers (
  annotator INTEGER NOT NULL REFERENCES annotators, trial INTEGER NOT NULL, item INTEGER NOT NULL,
  explained INTEGER NOT NULL, practice INTEGER NOT NULL, answer INTEGER NOT NULL, seconds REAL NOT NULL,
  server_seconds REAL, hidden INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (annotator, trial)
);
CREATE TRIGGER IF NOT EXISTS answers_stay BEFORE UPDATE ON answers
BEGIN SELECT RAISE(ABORT, 'answers are never changed'); END;
CREATE TRIGGER IF NOT EXISTS answers_are_kept BEFORE DELETE ON answers
BEGIN SELECT RAISE(ABORT, 'answers are never deleted'); END;
"""


@dataclass(frozen=True)
class Annotator:
    """A person who takes part: `number` counts from 0 in order of arrival, `token` is the secret in the link."""

    number: int
    name: str
    token: str


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        annotator: the annotator's number.
        trial: the number of the annotator's trial.
        item: the number of the image in the study.
        explained: whether the explanation was shown.
        practice: whether this was practice and does not count.
        answer: the chosen class.
        seconds: time from the painted image to the answer, measured by the browser.
        server_seconds: time from sending the trial to receiving the answer; None where the server was restarted.
        hidden: whether the page was hidden before the answer.
    """

    annotator: int
    trial: int
    item: int
    explained: bool
    practice: bool
    answer: int
    seconds: float
    server_seconds: float | None
    hidden: bool


class StoreError(UnderfireError):
    """An error that says that the file of the answers cannot be used, such as on a full disk."""


class NameTaken(InputError):
    """An error that says that another annotator has the name."""


class AnswerStore:
    """Read and write the annotators and answers of a study in its folder.

    Raises:
        StoreError: the file is not a database, has other tables, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        with self._translated():
            self._database = sqlite3.connect(self.path, check_same_thread=False, timeout=10)
            with self._database:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")  # a commit is on the disk
                self._database.executescript(_TABLES)
        try:
            self.annotators()  # a file of another program has other tables, or other values in them
            self.answers()
        except StoreError:
            self._database.close()
            raise

    def join(self, name: str) -> Annotator:
        """Register a new annotator.

        Raises:
            NameTaken: another annotator has the name. InputError: the name is empty, too long, or not printable.
        """
        name = " ".join(unicodedata.normalize("NFC", name).split())
        if not name or len(name) > _NAME or not name.isprintable():
            raise InputError(f"a name must have 1 to {_NAME} printable characters")
        token = secrets.token_urlsafe(16)
        with self._translated(), self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            (number,) = self._database.execute("SELECT count(*) FROM annotators").fetchone()
            try:
                row = (number, name, token, _now())
                self._database.execute("INSERT INTO annotators VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise NameTaken(f"the name {name!r} is taken; choose another, or open your own link") from None
        return Annotator(number, name, token)

    def find(self, token: str) -> Annotator | None:
        """Return the annotator with a token, or None."""
        found = self._rows("SELECT number, name, token FROM annotators WHERE token = ?", token)
        return Annotator(*found[0]) if found else None

    def annotators(self) -> list[Annotator]:
        """Return all annotators in order of arrival."""
        rows = self._rows("SELECT number, name, token FROM annotators ORDER BY number")
        return [Annotator(int(number), str(name), str(token)) for number, name, token in rows]

    def done(self, annotator: Annotator) -> int:
        """Return how many trials the annotator has answered."""
        return int(self._rows("SELECT count(*) FROM answers WHERE annotator = ?", annotator.number)[0][0])

    def add(self, *answers: Answer) -> int:
        """Write answers to the disk, all or none, and return how many were new; a trial keeps its first answer.

        Raises:
            InputError: a time is not a positive finite number of seconds within a day.
        """
        for answer in answers:
            if not 0 < answer.seconds < _SECONDS:  # also false for NaN
                raise InputError(f"seconds must be positive and less than a day, got {answer.seconds}")
        rows = [(*vars(answer).values(), _now()) for answer in answers]
        places = ", ".join("?" * (len(Answer.__dataclass_fields__) + 1))
        with self._translated(), self._lock, self._database:
            done = self._database.executemany(f"INSERT OR IGNORE INTO answers VALUES ({places})", rows)
            return done.rowcount

    def answers(self) -> list[Answer]:
        """Return all answers, ordered by annotator and trial."""
        columns = ", ".join(Answer.__dataclass_fields__)
        rows = self._rows(f"SELECT {columns} FROM answers ORDER BY annotator, trial")
        with self._translated():
            return [
                Answer(int(a), int(t), int(i), bool(e), bool(p), int(k), float(s), w and float(w), bool(h))
                for a, t, i, e, p, k, s, w, h in rows
            ]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._translated(), self._lock:
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn an error of the database, or a value that is not a number, into StoreError."""
        try:
            yield
        except UnderfireError:
            raise
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise StoreError(f"cannot use {str(self.path)!r}: {error}; it must be written by underfire study") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
