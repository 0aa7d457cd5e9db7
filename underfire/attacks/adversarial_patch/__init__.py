"""The adversarial patch."""

from underfire.attacks.adversarial_patch.attack import adversarial_patch

__all__ = ["adversarial_patch"]
