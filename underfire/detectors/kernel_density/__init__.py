"""Kernel density, Bayesian uncertainty, and the regression on both (Feinman et al. 2017)."""

from underfire.detectors.kernel_density.bayesian_uncertainty import BayesianUncertainty
from underfire.detectors.kernel_density.kernel_density import KernelDensity
from underfire.detectors.kernel_density.with_uncertainty import KernelDensityAndUncertainty

__all__ = ["BayesianUncertainty", "KernelDensity", "KernelDensityAndUncertainty"]
