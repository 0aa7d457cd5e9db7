"""The exit codes of the command line."""

from __future__ import annotations

HELD = 0
"""The command succeeded, every gate holds, and the run behind the figures is finished and can be believed."""

FAILED_GATE = 1
"""A gate failed on a finished run that can be believed."""

BAD_INPUT = 2
"""An argument, a file, a model, the data or other code of the user is wrong; also if that code calls `sys.exit`."""

NOT_BELIEVED = 3
"""The command or the run could not be finished, or its results cannot be believed, with or without gates."""

INTERRUPTED = 130
"""The user interrupted the command."""

CLOSED = 141
"""The reader of the output, such as `head`, closed it."""
