"""What every method of a kind must do, as functions that the tests of a plugin call.

A function raises AssertionError if its method breaks a promise, and the message names the promise. The contract tests
of underfire call the same functions for every method of the catalogue.
"""

from underfire.testing.attack import check_attack
from underfire.testing.interpreter import check_interpreter
from underfire.testing.measure import check_measure

__all__ = ["check_attack", "check_interpreter", "check_measure"]
