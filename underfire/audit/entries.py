"""Check the entries of a spec that name a method: the method, its options, and labels that must differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from underfire.audit.schema import AttackSpec, DefenseSpec, DetectorSpec, InterpreterSpec, key_path
from underfire.audit.values import unwrap, wrap
from underfire.catalog import Card, spell
from underfire.errors import InputError, SpecError, shown


def card_at(path: str, entry: AttackSpec | InterpreterSpec | DetectorSpec | DefenseSpec) -> Card[Any]:
    """Return the card of an entry; raise SpecError with its `path` if the catalogue has no such method."""
    try:
        return entry.card
    except InputError as error:
        raise SpecError(f"{path!r}: {error}") from None


def checked_options(
    path: str, method: Card[Any], given: Mapping[str, Any], elsewhere: Collection[str]
) -> dict[str, Any]:
    """Return the options of an entry as plain values, with texts such as `"8/255"` converted to numbers.

    Raises:
        SpecError: the method does not have an option, or the value has the wrong type.
    """
    given = unwrap(dict(given))
    try:
        checked = method.check(given, path=f"{path}." if path else "", elsewhere=elsewhere)
    except InputError as error:
        raise SpecError(str(error)) from None
    hints = method.hints
    return {name: _plain(value, given[name], hints.get(name, Any)) for name, value in checked.items()}


def _plain(value: Any, given: Any, hint: Any) -> Any:
    """Return `value` if a YAML file can contain it, and otherwise the canonical spelling of the `given` value.

    Objects in the given value, which no file can contain, become `Live`.
    """
    if isinstance(value, tuple):
        parts = given if isinstance(given, (list, tuple)) else value
        return [_plain(part, other, Any) for part, other in zip(value, parts, strict=True)]
    return value if isinstance(value, (bool, int, float, str, type(None))) else wrap(spell(given, hint))


def distinct(path: str, labels: Sequence[str]) -> None:
    """Raise SpecError if two entries of the list at `path` have the same label."""
    first: dict[str, int] = {}
    for i, label in enumerate(labels):
        if first.setdefault(label, i) != i:
            other = f"{path}[{first[label]}]"
            raise SpecError(
                f"{key_path(path, i, 'label')!r}: {shown(label)} is taken by {other}; give one another label"
            )
