"""Deep Validation: one-class SVMs of every class on the features of several layers."""

from underfire.detectors.deep_validation.detector import DeepValidation
from underfire.detectors.deep_validation.machines import Machines, fit_machines

__all__ = ["DeepValidation", "Machines", "fit_machines"]
