"""Training of classifiers."""

from underfire.training.linear_head import LinearHead, linear_head

__all__ = ["LinearHead", "linear_head"]
