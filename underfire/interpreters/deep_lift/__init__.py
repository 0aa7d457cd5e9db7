"""DeepLIFT: the method, and the multipliers of every kind of operation."""

from underfire.interpreters.deep_lift.deep_lift import deep_lift

__all__ = ["deep_lift"]
