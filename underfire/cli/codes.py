"""The exit codes of the command line."""

from __future__ import annotations

HELD = 0
"""The command succeeded, and every gate holds."""

FAILED_GATE = 1
"""A gate failed on a finished run that can be believed."""

BAD_INPUT = 2
"""An argument, a file, a model or the data is wrong."""

NOT_BELIEVED = 3
"""The command could not be finished, or its results cannot be believed."""

INTERRUPTED = 130
"""The user interrupted the command."""

CLOSED = 141
"""The reader of the output, such as `head`, closed it."""
