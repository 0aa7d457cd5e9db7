"""The catalogue: every method with its facts, as data beside its code.

The decorator `card` puts a method into the catalogue. The modules that hold methods are named in the entry-point group
`underfire`; a plugin names its own modules there. The choices of the command line, the tables of the documentation, the
columns of a report and the contract tests are all made from the cards.
"""

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
    TrainingFacts,
)
from underfire.catalog.options import Converter, converters, number
from underfire.catalog.registry import Card, card, cards, facts_of, find

__all__ = [
    "FACTS",
    "KINDS",
    "AttackFacts",
    "Card",
    "Converter",
    "DefenseFacts",
    "DetectorFacts",
    "Facts",
    "InterpreterFacts",
    "MeasureFacts",
    "PartFacts",
    "PoisoningFacts",
    "TrainingFacts",
    "card",
    "cards",
    "converters",
    "facts_of",
    "find",
    "number",
]
