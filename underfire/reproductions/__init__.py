"""Reproduce published experiments: `underfire reproduce NAME`. The results are in `docs/reproductions/`."""

from underfire.reproductions.registry import Outcome, Progress, names, run, summary

__all__ = ["Outcome", "Progress", "names", "run", "summary"]
