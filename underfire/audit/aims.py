"""Read what the attacks of a run aim at: the quadrant of prediction and explanation on the card of each."""

from __future__ import annotations

from functools import cache

from underfire.catalog import AttackFacts, cards

MAP_KEPT, MAP_CHANGED = "prediction changed, map kept", "prediction kept, map changed"
#: The quadrants of Noppel and Wressnegger, SoK: Explainable Machine Learning in Adversarial Environments, S&P 2024.
QUADRANTS = (MAP_KEPT, "both changed", MAP_CHANGED, "both kept")


@cache
def _facts() -> dict[str, AttackFacts]:
    return {card.name: card.facts for card in cards("attack")}


def aim_of(attack: str, attacked: str) -> str:
    """Return the quadrant that an attack aims at, one of `underfire.catalog.Quadrant`.

    An attack that is aimed at a map, and whose card names no quadrant, wants to keep the map.

    Args:
        attack: the name of the attack.
        attacked: the interpreter that it is aimed at; empty if there is none.
    """
    quadrant = _facts().get(attack, AttackFacts()).quadrant
    return MAP_KEPT if attacked and quadrant == "prediction changed" else quadrant


def aims_at(attacked: str, interpreter: str) -> bool:
    """Return whether an interpreter is the one that an attack is aimed at, or one of several with commas between."""
    return interpreter == attacked or interpreter in attacked.split(", ")


def aims_at_prediction(quadrant: str) -> bool:
    """Return whether an attack of this quadrant wants to change the prediction, so that its success tells of accuracy.

    >>> aims_at_prediction("both changed"), aims_at_prediction("prediction kept, map changed")
    (True, False)
    """
    return quadrant not in (MAP_CHANGED, "both kept")
