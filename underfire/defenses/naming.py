"""Defences that a spec or a caller gives by name: one, or several in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from underfire.catalog import find
from underfire.defenses.defended import Defended
from underfire.errors import InputError, shown
from underfire.model import Classifier, as_classifier

Entry = str | Mapping[str, Any] | Callable[..., Classifier]
"""The name of a defence, a mapping of its `name` and options, or a function `model -> model`."""


def named_defense(entry: Entry) -> Callable[..., Classifier]:
    """Return the defence of a name, of a mapping such as `{"name": "jpeg", "quality": 50}`, or a function unchanged.

    Raises:
        InputError: the entry is of another type, or the defence is unknown or has no such option.
    """
    if callable(entry):
        return entry
    name, options = (entry.get("name"), dict(entry)) if isinstance(entry, Mapping) else (entry, {})
    if not isinstance(name, str):
        raise InputError(
            "a defence is a name, a mapping such as {name: jpeg, quality: 50}, or a function model -> model, got "
            f"{shown(entry)}"
        )
    card = find("defense", name)
    options.pop("name", None)
    return card.with_options(**card.check(options))


def defend(model: Classifier, entries: Entry | Sequence[Entry]) -> Classifier:
    """Return the classifier behind one or several defences; the first one sees the images first.

    Args:
        model: the classifier, or any module.
        entries: a name, a mapping or a function, or a list of them; an empty list returns the classifier itself.

    Raises:
        InputError: an entry is no defence, or a defence does not return a defended classifier.
    """
    listed = [entries] if isinstance(entries, (str, Mapping)) or callable(entries) else entries
    if not isinstance(listed, Sequence):
        raise InputError(f"defences must be a list, such as [jpeg, {{name: bit_depth, bits: 3}}], got {shown(entries)}")
    model = as_classifier(model)
    for defense in reversed([named_defense(entry) for entry in listed]):
        made = defense(model)
        if not isinstance(made, Defended):
            raise InputError(f"a defence must return a defended classifier, got {type(made).__name__}")
        model = made
    return model
