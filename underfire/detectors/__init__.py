"""Detectors: `fit(model, clean)` learns what is usual, and `score(model, x) -> [B]` is higher for suspicious inputs.

A detector chooses no threshold; `underfire.measures.detection.threshold` takes one from the scores of clean inputs at a
stated false-positive rate. A fitted detector is saved to a file by `save`, and `load` reads the file. `fit_all` fits
several detectors from one pass over the data. A `Guard` is a classifier that refuses what its detector flags.
"""

from underfire.detectors.calibration import Calibration
from underfire.detectors.combination import Combination
from underfire.detectors.deep_validation import DeepValidation
from underfire.detectors.detector import Detector, Fit
from underfire.detectors.energy import Energy
from underfire.detectors.ensemble_interpretation import EnsembleInterpretation
from underfire.detectors.evaluated import Evaluated
from underfire.detectors.feature_squeezing import FeatureSqueezing
from underfire.detectors.files import load
from underfire.detectors.fitting import fit_all, score_all
from underfire.detectors.guard import Guard
from underfire.detectors.kernel_density import BayesianUncertainty, KernelDensity, KernelDensityAndUncertainty
from underfire.detectors.lid import LID
from underfire.detectors.mahalanobis import Mahalanobis
from underfire.detectors.ml_loo import MLLOO
from underfire.detectors.softmax import Softmax

__all__ = [
    "LID",
    "MLLOO",
    "BayesianUncertainty",
    "Calibration",
    "Combination",
    "DeepValidation",
    "Detector",
    "Energy",
    "EnsembleInterpretation",
    "Evaluated",
    "FeatureSqueezing",
    "Fit",
    "Guard",
    "KernelDensity",
    "KernelDensityAndUncertainty",
    "Mahalanobis",
    "Softmax",
    "fit_all",
    "load",
    "score_all",
]
