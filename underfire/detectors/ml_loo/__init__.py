"""ML-LOO: the dispersion of leave-one-out attributions of neurons in several layers."""

from underfire.detectors.ml_loo.ml_loo import MLLOO

__all__ = ["MLLOO"]
