"""Detectors: `fit(model, clean)` learns what is usual, and `score(model, x) -> [B]` is higher for suspicious inputs.

A detector chooses no threshold; `underfire.measures.detection.threshold` takes one from the scores of clean inputs at a
stated false-positive rate. A fitted detector is saved to a file by `save`, and `load` reads the file.
"""

from underfire.detectors.detector import Detector, load
from underfire.detectors.ensemble_interpretation import EnsembleInterpretation
from underfire.detectors.feature_squeezing import FeatureSqueezing

__all__ = ["Detector", "EnsembleInterpretation", "FeatureSqueezing", "load"]
