"""Run forward passes that compute only the activations that a change of the image can reach."""

from underfire.incremental.intervals import Intervals
from underfire.incremental.passes import IncrementalForward, NotReusable

__all__ = ["IncrementalForward", "Intervals", "NotReusable"]
