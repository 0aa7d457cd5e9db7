"""Store the answers of a study in one SQLite file, to which rows are added; only a withdrawal deletes rows.

Every answer is on the disk before the annotator sees the next image, so nothing is lost if the server, the browser or
the machine stops. The study determines the order of an annotator's trials; an annotator who returns continues with the
first trial that has no answer. An annotator who withdraws leaves nothing but the time of the withdrawal, and the next
new annotator gets the free number, and so the trials that keep the study balanced.
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
from itertools import count
from pathlib import Path

from underfire.errors import InputError, UnderfireError

FILE = "answers.sqlite"
_NAME = 40  # the longest name, in characters
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # of a completion code; I, O, 0 and 1 look alike
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
CREATE TABLE IF NOT EXISTS codes (annotator INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS withdrawals (at TEXT NOT NULL);
DROP TRIGGER IF EXISTS answers_are_kept;
CREATE TRIGGER IF NOT EXISTS answers_of_annotators_are_kept BEFORE DELETE ON answers
WHEN EXISTS (SELECT 1 FROM annotators WHERE number = OLD.annotator)
BEGIN SELECT RAISE(ABORT, 'answers are never deleted without their annotator'); END;
"""


@dataclass(frozen=True)
class Annotator:
    """A person who takes part.

    Attributes:
        number: a number from 0, which determines the trials.
        name: the name or pseudonym.
        token: the secret in the link.
        code: the completion code; empty for an annotator who has not finished.
    """

    number: int
    name: str
    token: str
    code: str = ""


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
                self._database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
                self._database.executescript(_TABLES)
        try:
            self.annotators()  # a file of another program has other tables, or other values in them
            self.answers()
        except StoreError:
            self._database.close()
            raise

    def join(self, name: str) -> Annotator:
        """Register a new annotator, with the smallest free number.

        Raises:
            NameTaken: another annotator has the name. InputError: the name is empty, too long, or not printable.
        """
        name = valid_name(name)
        token = secrets.token_urlsafe(16)
        with self._translated(), self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            taken = {number for (number,) in self._database.execute("SELECT number FROM annotators")}
            number = next(i for i in count() if i not in taken)
            try:
                row = (number, name, token, _now())
                self._database.execute("INSERT INTO annotators VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise NameTaken(
                    f"somebody already takes part as {name!r}: choose another name; if this is you, open your own link"
                ) from None
        return Annotator(number, name, token)

    def withdraw(self, annotator: Annotator) -> int:
        """Delete an annotator, with all answers, and return the number of deleted answers.

        Only the time of the withdrawal is kept. The bytes of what is deleted are overwritten.
        """
        with self._translated(), self._lock:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                found = self._database.execute("DELETE FROM annotators WHERE token = ?", (annotator.token,))
                if not found.rowcount:
                    return 0
                self._database.execute("DELETE FROM codes WHERE annotator = ?", (annotator.number,))
                done = self._database.execute("DELETE FROM answers WHERE annotator = ?", (annotator.number,))
                self._database.execute("INSERT INTO withdrawals VALUES (?)", (_now(),))
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log has the rows too
            return done.rowcount

    def withdrawals(self) -> int:
        """Return how many annotators have withdrawn."""
        return int(self._rows("SELECT count(*) FROM withdrawals")[0][0])

    def completion_code(self, annotator: Annotator) -> str:
        """Return the code that proves that an annotator has finished; the first call draws it."""
        code = "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(2))
        with self._translated(), self._lock, self._database:
            self._database.execute("INSERT OR IGNORE INTO codes VALUES (?, ?)", (annotator.number, code))
        return str(self._rows("SELECT code FROM codes WHERE annotator = ?", annotator.number)[0][0])

    def find(self, token: str) -> Annotator | None:
        """Return the annotator with a token, or None."""
        return next(iter(self._annotators("WHERE token = ?", token)), None)

    def annotators(self) -> list[Annotator]:
        """Return all annotators, ordered by their numbers."""
        return self._annotators("ORDER BY number")

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

    def _annotators(self, which: str, *values: object) -> list[Annotator]:
        """Return the annotators that a clause selects."""
        columns = "SELECT number, name, token, ifnull(code, '') FROM annotators LEFT JOIN codes ON annotator = number"
        rows = self._rows(f"{columns} {which}", *values)
        return [Annotator(int(number), str(name), str(token), str(code)) for number, name, token, code in rows]

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


def valid_name(name: str) -> str:
    """Return a name without superfluous spaces.

    Raises:
        InputError: it is empty, too long, or has characters that cannot be printed.
    """
    name = " ".join(unicodedata.normalize("NFC", name).split())
    right = f"enter a name or pseudonym of 1 to {_NAME} characters, such as Ada 7"
    if not name:
        raise InputError(f"the name is empty: {right}")
    if not name.isprintable():
        code = ord(next(character for character in name if not character.isprintable()))
        raise InputError(f"the name has a character that cannot be printed (U+{code:04X}): {right}")
    if len(name) > _NAME:
        raise InputError(f"the name has {len(name)} characters: {right}")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
