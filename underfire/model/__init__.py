"""The model under test: a classifier around a module, an oracle that returns only classes, and their sessions."""

from underfire.model.answers import OUTPUTS
from underfire.model.classifier import Classifier, Count, as_classifier
from underfire.model.ensemble import Ensemble
from underfire.model.oracle import Oracle
from underfire.model.sessions import measured, model_errors, note_finite, session, unwatched

__all__ = [
    "OUTPUTS",
    "Classifier",
    "Count",
    "Ensemble",
    "Oracle",
    "as_classifier",
    "measured",
    "model_errors",
    "note_finite",
    "session",
    "unwatched",
]
