"""ADV²: images that fool the model and its explanation."""

from underfire.attacks.adv2.attack import adv2

__all__ = ["adv2"]
