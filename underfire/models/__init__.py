"""Load networks by URI, as in `load("zoo:cluttered_digits")`, and wrap estimators of scikit-learn as models."""

from underfire.models import zoo
from underfire.models.ensembles import ensemble
from underfire.models.estimators import as_oracle, from_sklearn
from underfire.models.loaders import fingerprint, load

__all__ = ["as_oracle", "ensemble", "fingerprint", "from_sklearn", "load", "zoo"]
