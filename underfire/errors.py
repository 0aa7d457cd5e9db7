"""The exceptions that underfire raises on purpose, as one class tree.

    UnderfireError
    ├── InputError          (also a ValueError) something that was passed in is wrong
    │   ├── SpecError       a key or value of an audit spec
    │   ├── DataError       images, labels, or the files that hold them
    │   ├── ModelError      the classifier under test, or the file that holds it
    │   ├── NotFitted       a method that learns from data was used before it was fitted
    │   └── Unsupported     a mode that a method does not support, or does not support for this model
    ├── OracleError         a model failed on a query during an attack; the error carries the result so far
    ├── LedgerError         a run folder cannot be used: it is in use, damaged, or written by a newer version
    ├── DiskFull            no space is left for a file; files that were complete before are kept
    └── MissingExtra        (also an ImportError) an optional dependency is not installed

A message is one line that states the wrong value and the valid ones. The command line prints that line and exits with
status 2, or 3 after an OracleError or a DiskFull: the input was right. Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import reprlib
import shlex
from collections.abc import Iterable
from itertools import islice
from typing import Any


class UnderfireError(Exception):
    """Base of every error that underfire raises on purpose."""


class InputError(UnderfireError, ValueError):
    """Something that was passed in is wrong."""


class SpecError(InputError):
    """A key or a value of an audit spec is wrong."""


class DataError(InputError):
    """Images, labels, or the files that hold them are wrong."""


class ModelError(InputError):
    """The classifier under test, or the file that holds it, is wrong."""


class Unsupported(InputError):
    """A method does not support a mode, or does not support it for this model."""


class NotFitted(InputError):
    """A method that learns from data was used before it was fitted."""


class OracleError(UnderfireError):
    """A model failed on a query during an attack.

    Attributes:
        found: the result of the attack so far, such as the best images; None if there is none.
    """

    found: Any = None


class LedgerError(UnderfireError):
    """A run folder cannot be used: it is in use, damaged, or written by a newer version."""


class DiskFull(UnderfireError):
    """No space is left for a file; files that were complete before are kept."""


class MissingExtra(UnderfireError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the package that is missing, as pip names it.
        others: packages that are needed with it.
    """

    def __init__(self, package: str, *others: str) -> None:
        self.packages = (package, *others)
        name, command = package.partition("[")[0], " ".join(map(shlex.quote, self.packages))
        super().__init__(f"{name} is not installed; install it with: pip install {command}")

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, ...]]:
        return type(self), self.packages  # so that another process can unpickle it


class ModelNotice(UserWarning):
    """A model was opened in an unusual way; the message names the limits of the opened model."""


def shown(value: Any, length: int = 200) -> str:
    """Return `repr(value)` for an error message, cut to about `length` characters, without writing out large values.

    >>> shown("pgd"), shown([1, 2.5, {"a": None}])
    ("'pgd'", "[1, 2.5, {'a': None}]")
    >>> shown(10**5000), shown("a" * 1000, 20)
    ('a whole number of more than 3,900 digits', "'aaaaaaa...aaaaaaaa'")
    """
    short = _Short(length)
    text = short.repr(value)
    return text if len(text) <= 2 * length else f"{text[:length]} ..."


class _Short(reprlib.Repr):
    """Write representations of values, and stop after a number of values, counted over all nested levels."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = length
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 8
        self._left = 4 * length  # the number of values that may still be written

    def repr1(self, x: Any, level: int) -> str:
        """Return the representation of a value, or `...` after many values."""
        self._left -= 1
        return "..." if self._left < 0 else super().repr1(x, level)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Return the representation of a mapping in its own order."""
        if not x or level <= 0:
            return "{...}" if x else "{}"
        items = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return f"{{{', '.join(items + ['...'] * (len(x) > self.maxdict))}}}"

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits of a number, or words for a number with very many digits."""
        return repr(x) if x.bit_length() < 600 else f"a whole number of {_digits(x)} digits"

    def repr_str(self, x: str, level: int) -> str:
        """Return a quoted text, cut in the middle."""
        if len(x) <= self.maxstring:
            return repr(x)
        half = max(0, (self.maxstring - 5) // 2)
        return repr(f"{x[:half]}...{x[len(x) - half - 1 :]}")


def _digits(number: int) -> str:
    """Return how many digits a number has; Python refuses to write more than 4,300."""
    return str(len(str(abs(number)))) if number.bit_length() < 13_000 else "more than 3,900"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the end of an error message: the choice that `word` probably meant, if one is close, and all choices.

    >>> nearest("pdg", ["pgd", "pgn", "fgsm"])
    "did you mean 'pgd'? Choices: fgsm, pgd, pgn"
    """
    names, word = sorted(choices), str(word)[:100]
    close = difflib.get_close_matches(word, names, n=5, cutoff=0.5)
    close.sort(key=lambda name: sorted(name) != sorted(word))  # swapped letters are the likeliest slip
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Choices: {', '.join(names) or '(none)'}"


def with_article(noun: str) -> str:
    """Return the noun with its indefinite article, for an error message.

    >>> with_article("objective"), with_article("view")
    ('an objective', 'a view')
    """
    return f"{'an' if noun[:1].lower() in set('aeio') else 'a'} {noun}"
