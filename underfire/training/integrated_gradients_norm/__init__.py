"""Training with a bound on integrated gradients (Chen et al., Robust Attribution Regularization, NeurIPS 2019)."""

from underfire.training.integrated_gradients_norm.ig_norm import ig_norm
from underfire.training.integrated_gradients_norm.ig_sum_norm import ig_sum_norm

__all__ = ["ig_norm", "ig_sum_norm"]
