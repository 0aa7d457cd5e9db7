"""JSMA, the attack along the Jacobian's saliency map."""

from underfire.attacks.jsma.attack import jsma

__all__ = ["jsma"]
