"""Parseval networks (Cisse et al., ICML 2017)."""

from underfire.training.parseval.convex_sum import ConvexSum, onto_simplex
from underfire.training.parseval.retraction import orthonormality_error, singular_values
from underfire.training.parseval.training import parseval

__all__ = ["ConvexSum", "onto_simplex", "orthonormality_error", "parseval", "singular_values"]
