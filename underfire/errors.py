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
    └── MissingExtra        (also an ImportError) an optional dependency is not installed

A message is one line that states the wrong value and the valid ones. The command line prints that line and exits with
status 2. Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
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
    """A model was opened, but not in the usual way; the message says what it cannot do."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the end of an error message: the choice that `word` probably meant, if one is close, and all choices.

    >>> nearest("pdg", ["pgd", "fgsm"])
    "did you mean 'pgd'? Choices: fgsm, pgd"
    """
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Choices: {', '.join(names) or '(none)'}"


def with_article(noun: str) -> str:
    """Return the noun with its indefinite article, for an error message.

    >>> with_article("objective"), with_article("view")
    ('an objective', 'a view')
    """
    return f"{'an' if noun[:1].lower() in set('aeio') else 'a'} {noun}"
