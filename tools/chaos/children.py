"""Child processes: run a function in a fork of this process, with limits, and kill it if asked to."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underfire.errors import UnderfireError

REFUSED, CRASHED = 2, 70


@dataclass(frozen=True)
class Outcome:
    """The end of a child process.

    Attributes:
        code: its exit code: 0, `REFUSED` after an UnderfireError, `CRASHED` after another error; negative for a signal.
        value: what the function returned, as plain values; None if it did not return.
        said: what it wrote to stdout and stderr, and the message of its error.
        seconds: the time that it ran.
        megabytes: its largest resident memory.
    """

    code: int
    value: Any
    said: str
    seconds: float
    megabytes: float

    @property
    def answer(self) -> Any:
        """The value of a function that returned.

        Raises:
            RuntimeError: it did not; the message says how it ended.
        """
        if self.code != 0:
            raise RuntimeError(f"a child process ended with code {self.code}: {self.said.strip()[-500:]}")
        return self.value


def in_child(
    function: Callable[[], Any],
    *,
    kill: tuple[float, int] | None = None,
    limits: Mapping[int, int] | None = None,
    seconds: float = 120.0,
) -> Outcome:
    """Run a function in a forked process and wait for its end.

    Args:
        function: returns plain values.
        kill: send this signal after so many seconds, `(seconds, signal)`.
        limits: resource limits, such as `{resource.RLIMIT_FSIZE: 1000}`.
        seconds: kill it after this time in any case.
    """
    with tempfile.TemporaryDirectory() as place:
        answer, said = Path(place, "answer.json"), Path(place, "said.txt")
        said.touch()
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _run(function, answer, said, limits or {})
        usage = _wait(child, start, kill or (seconds, signal.SIGKILL))
        taken = time.monotonic() - start
        value = json.loads(answer.read_text()) if answer.exists() else None
        return Outcome(usage[0], value, said.read_text(errors="replace"), taken, usage[1] / 1024)


def _run(function: Callable[[], Any], answer: Path, said: Path, limits: Mapping[int, int]) -> None:
    """Run the function in the child, and end the child."""
    code = CRASHED
    try:
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, errors="backslashreplace")
        try:
            for kind, value in limits.items():
                resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
            value = function()
            for kind in limits:
                resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)
            answer.write_text(json.dumps(value))
            code = 0
        except UnderfireError as error:
            print(error)
            code = REFUSED
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:  # noqa: BLE001 - a bug of the product is what this looks for
            traceback.print_exc()
    finally:
        os._exit(code)


def _wait(child: int, start: float, kill: tuple[float, int]) -> tuple[int, float]:
    """Wait for a child, send the signal at its time, and return the exit code and the largest memory in kilobytes."""
    sent = False
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        now = time.monotonic() - start
        if not sent and now >= kill[0]:
            os.kill(child, kill[1])
            sent = True
        elif now >= kill[0] + 60:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
