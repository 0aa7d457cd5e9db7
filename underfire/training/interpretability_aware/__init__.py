"""Interpretability-aware robust training (Boopathy et al., ICML 2020)."""

from underfire.training.interpretability_aware.training import interpretability_aware

__all__ = ["interpretability_aware"]
