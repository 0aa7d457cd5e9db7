"""The attack that trains a substitute model and attacks that."""

from underfire.attacks.substitute.attack import substitute

__all__ = ["substitute"]
