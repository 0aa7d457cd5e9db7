"""Read the aims of the attacks of a run: the quadrant of prediction and explanation on the card of each attack."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from underfire.catalog import AttackFacts, find
from underfire.errors import InputError

MAP_KEPT, MAP_CHANGED = "prediction changed, map kept", "prediction kept, map changed"
#: The quadrants of Noppel and Wressnegger, SoK: Explainable Machine Learning in Adversarial Environments, S&P 2024.
QUADRANTS = (MAP_KEPT, "both changed", MAP_CHANGED, "both kept")


@cache
def facts_named(attack: str) -> AttackFacts:
    """Return the facts on the card of an attack; the default ones for a function of a Python caller, without a card."""
    try:
        return find("attack", attack).facts
    except InputError:
        return AttackFacts()


def aim_of(attack: str, attacked: str) -> str:
    """Return the quadrant that an attack aims at, one of `underfire.catalog.Quadrant`.

    An attack that is aimed at a map, and whose card names no quadrant, wants to keep the map.

    Args:
        attack: the name of the attack.
        attacked: what it is aimed at, as `joined` returns it; empty if it is aimed at no map.
    """
    quadrant = facts_named(attack).quadrant
    return MAP_KEPT if attacked and quadrant == "prediction changed" else quadrant


_LABEL = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s,"][^,]*))')


def joined(labels: Iterable[str]) -> str:
    """Return the labels of interpreters as one text, from which `aims_at` reads them again.

    A label that contains a comma or a quotation mark, or that begins or ends with a space, stands in quotation marks.

    >>> joined(["cam", "cup, mug"])
    'cam, "cup, mug"'
    """
    plain = re.compile(r'[^\s,"]([^,"]*[^\s,"])?')
    return ", ".join(
        label if plain.fullmatch(label) else '"{}"'.format(label.replace('"', '""')) for label in labels if label
    )


def _aims(attacked: str) -> list[str]:
    found = _LABEL.finditer(attacked)
    labels = (m[2].strip() if m[1] is None else m[1].replace('""', '"') for m in found)
    return [label for label in labels if label]


def aims_at(attacked: str, interpreter: str) -> bool:
    """Return whether an interpreter is the one, or one of those, that an attack is aimed at.

    Args:
        attacked: what the attack is aimed at, as `joined` returns it.
        interpreter: the label of the interpreter.
    """
    return interpreter in _aims(attacked)


def aims_only_at(attacked: str, interpreter: str) -> bool:
    """Return whether an interpreter is the only one that an attack is aimed at."""
    return _aims(attacked) == [interpreter]


def aims_at_prediction(quadrant: str) -> bool:
    """Return whether an attack of this quadrant wants to change the prediction, so that its success tells of accuracy.

    >>> aims_at_prediction("both changed"), aims_at_prediction("prediction kept, map changed")
    (True, False)
    """
    return quadrant not in (MAP_CHANGED, "both kept")
