"""Interpreters that a caller gives by name or as functions, for methods that compare the maps of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from underfire.catalog import InterpreterFacts, facts_of, find
from underfire.errors import InputError, shown

Entry = str | Callable[..., Any]
"""The name of an interpreter, or a function `(model, x, y) -> map`."""


def named_interpreters(entries: Sequence[Entry]) -> list[Callable[..., Any]]:
    """Return the interpreters of a list of names and functions, names with their default options.

    Raises:
        InputError: it is no list, an entry is neither a name nor a function, or an interpreter is unknown or gives no
            maps.
    """
    if not isinstance(entries, (list, tuple)):
        raise InputError(f"interpreters must be a list, such as ('gradient', 'grad_cam'), got {shown(entries)}")
    return [_interpreter(entry) for entry in entries]


def _interpreter(entry: Any) -> Callable[..., Any]:
    if callable(entry):
        return entry
    if not isinstance(entry, str):
        raise InputError(f"an interpreter is a name or a function (model, x, y) -> map, got {shown(entry)}")
    method = find("interpreter", entry)
    if facts_of(method, InterpreterFacts()).gives != "map":
        raise InputError(f"{entry} gives {method.facts.gives}, and here maps are compared")
    return method.with_options()
