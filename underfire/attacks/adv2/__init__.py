"""ADV²: images that fool the model and its explanation, and adaptive forms that a detector does not notice."""

from underfire.attacks.adv2.attack import adv2
from underfire.attacks.adv2.ensemble import adv2_ensemble
from underfire.attacks.adv2.squeezing import adv2_squeezing

__all__ = ["adv2", "adv2_ensemble", "adv2_squeezing"]
