"""Forward passes that compute only what a change of the image can have reached."""

from underfire.incremental.intervals import Intervals
from underfire.incremental.passes import IncrementalForward, NotReusable

__all__ = ["IncrementalForward", "Intervals", "NotReusable"]
