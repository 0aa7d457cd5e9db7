"""Carlini and Wagner's attacks in L2, L-infinity and L0."""

from underfire.attacks.carlini_wagner.attack import carlini_wagner

__all__ = ["carlini_wagner"]
