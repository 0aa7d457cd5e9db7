"""Run the command line: `underfire audit | report | attack | explain | train | list | reproduce`."""

from underfire.cli.app import main

__all__ = ["main"]
