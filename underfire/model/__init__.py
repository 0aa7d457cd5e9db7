"""The model under test: the classifier around a module, the oracle that gives classes alone, and how they are used."""

from underfire.model.answers import OUTPUTS
from underfire.model.classifier import Classifier, Count, as_classifier
from underfire.model.oracle import Oracle
from underfire.model.sessions import model_errors, note_finite, session, unwatched

__all__ = [
    "OUTPUTS",
    "Classifier",
    "Count",
    "Oracle",
    "as_classifier",
    "model_errors",
    "note_finite",
    "session",
    "unwatched",
]
