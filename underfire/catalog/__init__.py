"""The catalogue: a card for every method, which states its facts beside its code.

The decorator `card` puts a method into the catalogue. The entry-point group `underfire` lists the modules that contain
methods; a plugin adds its own modules to that group. The choices of the command line, the tables of the documentation,
the columns of a report and the contract tests are all generated from the cards.
"""

from underfire.catalog.calls import callers
from underfire.catalog.composing import Grammar, composed, grammars
from underfire.catalog.facts import (
    FACTS,
    KINDS,
    AttackFacts,
    DefenseFacts,
    DetectorFacts,
    Facts,
    InterpreterFacts,
    MeasureFacts,
    PartFacts,
    PoisoningFacts,
    Quadrant,
    TrainingFacts,
)
from underfire.catalog.options import Converter, convert, converters, number, spell
from underfire.catalog.registry import Card, card, card_behind, card_of, cards, facts_of, find

__all__ = [
    "FACTS",
    "KINDS",
    "AttackFacts",
    "Card",
    "Converter",
    "DefenseFacts",
    "DetectorFacts",
    "Facts",
    "Grammar",
    "InterpreterFacts",
    "MeasureFacts",
    "PartFacts",
    "PoisoningFacts",
    "Quadrant",
    "TrainingFacts",
    "callers",
    "card",
    "card_behind",
    "card_of",
    "cards",
    "composed",
    "convert",
    "converters",
    "facts_of",
    "find",
    "grammars",
    "number",
    "spell",
]
