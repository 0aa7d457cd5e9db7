"""One thing has one name: docs/vocabulary.md against every signature in the catalogue."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

from underfire import Card, cards
from underfire.catalog import AttackFacts

PAGE = Path(__file__).resolve().parents[1] / "docs" / "vocabulary.md"
ROWS = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
WORDS = {word for word, _ in ROWS}
REFUSED = {other: word for word, others in ROWS for other in re.findall(r"`(\w+)`", others)}
# The rules of LRP are known by these letters, in the papers and in every library.
SYMBOLS = {"lrp": {"epsilon", "alpha"}}
METHODS = [card for kind in ("attack", "interpreter") for card in cards(kind)]


def faults(card: Card) -> list[str]:
    """What is wrong with the words of one method's signature, as sentences."""
    call = inspect.signature(card.function.__call__ if card.fitted else card.function)
    begin = list(call.parameters)[card.fitted : 3 + card.fitted]  # after self
    parameters = list(inspect.signature(card.function).parameters.values())
    found = []
    if begin != ["model", "x", "y"]:
        found.append("it must begin with model, x, y")
    explained = set(re.findall(r"^ +(\w+): ", inspect.getdoc(card.function) or "", re.MULTILINE))
    for p in parameters if card.fitted else parameters[3:]:
        if p.kind is not inspect.Parameter.KEYWORD_ONLY:
            found.append(f"{p.name} must be keyword-only")
        if p.name in REFUSED and p.name not in SYMBOLS.get(card.name, ()):
            found.append(f"say {REFUSED[p.name]} instead of {p.name}")
        elif p.name not in WORDS | explained | SYMBOLS.get(card.name, set()):
            found.append(f"{p.name} is neither in docs/vocabulary.md nor explained in the docstring")
    return found


@pytest.mark.parametrize("card", METHODS, ids=lambda card: f"{card.kind}-{card.name}")
def test_signatures_use_the_vocabulary(card: Card) -> None:
    assert faults(card) == []


def test_a_word_that_three_methods_use_is_in_the_vocabulary() -> None:
    uses = Counter(name for card in METHODS for name in card.options)
    assert [name for name, count in uses.items() if count >= 3 and name not in WORDS] == []


def test_a_wrong_signature_is_seen() -> None:
    def shady(model, images, y, alpha=1, *, n_iter=3, wobble=2, width=1):
        """Do things.

        Args:
            width: how wide.
        """

    assert faults(Card("attack", "shady", shady, "", AttackFacts())) == [
        "it must begin with model, x, y",
        "alpha must be keyword-only",
        "say step_size instead of alpha",
        "say steps instead of n_iter",
        "wobble is neither in docs/vocabulary.md nor explained in the docstring",
    ]


def test_the_page_has_one_meaning_for_every_word() -> None:
    assert {"model", "x", "y", "goal", "eps", "steps", "step_size", "restarts", "generator", "layer", "target"} <= WORDS
    assert len(WORDS) == len(ROWS)
    assert not WORDS & set(REFUSED)
