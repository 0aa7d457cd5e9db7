"""Errors: what a worker raises arrives as the same error."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from underfire import errors


def _tree(kind: type[errors.UnderfireError]) -> Iterator[type[errors.UnderfireError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from _tree(other)


@pytest.mark.parametrize("kind", sorted(set(_tree(errors.UnderfireError)), key=lambda kind: kind.__name__))
def test_an_error_can_be_pickled(kind: type[errors.UnderfireError]) -> None:
    words = ("ray", "scale") if kind is errors.MissingExtra else ("what was wrong",)
    error = kind(*words)
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is kind
    assert str(there) == str(error)
