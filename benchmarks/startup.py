"""Measure the start-up time of a bare import and of the command line's help."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import Row, in_turn


def seconds() -> dict[str, Any]:
    """Measure the seconds of whole processes in five rounds."""
    command = str(Path(sys.executable).with_name("underfire"))

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    return in_turn(
        {
            "import underfire": lambda: run(sys.executable, "-c", "import underfire"),
            "import underfire, and its attacks": lambda: run(
                sys.executable, "-c", "import underfire; underfire.attacks.pgd"
            ),
            "underfire --help": lambda: run(command, "--help"),
        },
        now=time.perf_counter,
    )


def rows(found: dict[str, Any]) -> list[Row]:
    """Return a row with the median seconds of each process."""
    wanted = {"import underfire": "≤ 0.05", "underfire --help": "≤ 0.3"}
    return [
        (f"{name}: seconds", f"{sorted(seconds)[len(seconds) // 2]:.2f}", wanted.get(name, "for comparison"))
        for name, seconds in found.items()
    ]
