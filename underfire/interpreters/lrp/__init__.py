"""Layer-wise relevance propagation: the method, its rules for weighted layers, and how it passes through a network."""

from underfire.interpreters.lrp.lrp import lrp

__all__ = ["lrp"]
