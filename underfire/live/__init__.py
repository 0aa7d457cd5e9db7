"""Audit objects of a Python session: `underfire.audit(model, data, attacks=[...])`."""

from underfire.live.auditing import audit
from underfire.live.results import Results

__all__ = ["Results", "audit"]
