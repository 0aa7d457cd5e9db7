"""Corner cases: images that a transformation changes so much that the model errs, and people still do not."""

from underfire.attacks.corner_cases.attack import corner_cases
from underfire.attacks.corner_cases.synthesis import CornerCases, Strength, search_strength, synthesise
from underfire.attacks.corner_cases.transformations import Transformation, transformations

__all__ = [
    "CornerCases",
    "Strength",
    "Transformation",
    "corner_cases",
    "search_strength",
    "synthesise",
    "transformations",
]
