"""Names that are composed of words: methods that the catalogue makes when they are asked for, and does not list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from underfire.catalog.registry import Card


@dataclass(frozen=True)
class Grammar:
    """The way in which the names of one kind of methods are composed.

    Attributes:
        said: one line that says how a name is composed, for lists of methods.
        compose: returns the card of the method of a name, or None if the name has no word of the grammar. Raises
            InputError if it has some, and another word is unknown, or two of them contradict each other.
    """

    said: str
    compose: Callable[[str], Card[Any] | None]


#: Grammars by kind. The package that knows the words of a kind adds its own.
grammars: dict[str, Grammar] = {}

#: The cards that were composed so far, by kind and name.
made: dict[tuple[str, str], Card[Any]] = {}


def composed(kind: str, name: str) -> Card[Any] | None:
    """Return the card of a method whose name is composed, or None if it has no word of the grammar of its kind.

    Raises:
        InputError: a word of the name is unknown, or two words contradict each other.
    """
    if (kind, name) not in made and kind in grammars:
        found = grammars[kind].compose(name)
        if found is None:
            return None
        made[kind, name] = found
    return made.get((kind, name))
