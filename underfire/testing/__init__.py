"""Contracts: functions that check whether a method keeps the promises of its kind, for the tests of a plugin.

Each function raises AssertionError if the method breaks a promise, and the message names the promise. The tests of
underfire call the same functions for every method of the catalogue.
"""

from underfire.testing.attack import check_attack
from underfire.testing.defense import check_defense
from underfire.testing.detector import check_detector
from underfire.testing.interpreter import check_interpreter
from underfire.testing.measure import check_measure
from underfire.testing.training import check_training

__all__ = ["check_attack", "check_defense", "check_detector", "check_interpreter", "check_measure", "check_training"]
