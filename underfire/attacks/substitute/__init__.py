"""The attack through a substitute model."""

from underfire.attacks.substitute.attack import substitute

__all__ = ["substitute"]
