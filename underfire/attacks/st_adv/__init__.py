"""Spatially transformed images."""

from underfire.attacks.st_adv.attack import st_adv

__all__ = ["st_adv"]
