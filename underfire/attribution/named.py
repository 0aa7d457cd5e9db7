"""Interpreters that a caller gives by name, with options or as functions, for methods that need the maps of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from underfire.catalog import InterpreterFacts, facts_of, find
from underfire.errors import InputError, shown

Entry = str | Mapping[str, Any] | Callable[..., Any]
"""The name of an interpreter, a mapping of its `name` and options, or a function `(model, x, y) -> map`."""


def named_interpreters(entries: Sequence[Entry]) -> list[Callable[..., Any]]:
    """Return the interpreters of a list of names, mappings and functions; a name has the default options.

    Raises:
        InputError: it is not a list, an entry is of another type, or an interpreter is unknown, has no such option or
            gives no maps.
    """
    if not isinstance(entries, (list, tuple)):
        raise InputError(f"interpreters must be a list, such as ('gradient', 'grad_cam'), got {shown(entries)}")
    return [_interpreter(entry) for entry in entries]


def _interpreter(entry: Any) -> Callable[..., Any]:
    if callable(entry):
        return entry
    name, options = (entry.get("name"), dict(entry)) if isinstance(entry, Mapping) else (entry, {})
    if not isinstance(name, str):
        raise InputError(
            "an interpreter is a name, a mapping such as {name: rts, weights: FILE}, or a function (model, x, y) -> "
            f"map, got {shown(entry)}"
        )
    method = find("interpreter", name)
    if facts_of(method, InterpreterFacts()).gives != "map":
        raise InputError(f"{name} gives {method.facts.gives}, and here maps are compared")
    options.pop("name", None)
    return method.with_options(**method.check(options))
