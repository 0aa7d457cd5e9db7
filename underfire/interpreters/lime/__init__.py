"""LIME (Ribeiro, Singh and Guestrin, KDD 2016): a weighted linear regression on superpixels shown and hidden."""

from underfire.interpreters.lime.lime import lime
from underfire.interpreters.lime.regression import LimeFit, lime_fit, lime_stability

__all__ = ["LimeFit", "lime", "lime_fit", "lime_stability"]
