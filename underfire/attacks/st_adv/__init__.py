"""stAdv: images that fool the model because their pixels are displaced."""

from underfire.attacks.st_adv.attack import st_adv

__all__ = ["st_adv"]
