"""The adversarial patch."""

from underfire.attacks.adversarial_patch.attack import adversarial_patch, train_patch

__all__ = ["adversarial_patch", "train_patch"]
