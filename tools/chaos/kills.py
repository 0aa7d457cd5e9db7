"""Kill runs at random moments, and run several at once in one folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tools.chaos.audits import audit, state
from tools.chaos.children import CRASHED, REFUSED, in_child
from tools.chaos.parts import rounds

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def reference() -> tuple[str, float]:
    """Return the hash of the tables of a run that nothing disturbs, and the seconds that the run takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        done = in_child(partial(audit, folder))
        assert done.code == 0, done.said
        return in_child(partial(state, folder)).answer["tables"], done.seconds


def kills(draw: Random, seconds: float, expected: str, whole: float) -> dict[str, Any]:
    """Kill the process of a run at random moments until it is done, again and again.

    Args:
        draw: random numbers.
        seconds: the time for this experiment.
        expected: the hash of the tables of an undisturbed run.
        whole: the seconds that an undisturbed run takes.
    """
    count = dict.fromkeys((name.name for name in SIGNALS), 0)
    found: dict[str, Any] = {
        "runs": 0,
        "kills": count,
        "lost": 0,
        "torn": 0,
        "different": 0,
        "refused": 0,
        "crashed": 0,
    }
    for _ in rounds(seconds, least=2):
        with tempfile.TemporaryDirectory() as place:
            folder, before = Path(place, "run"), set[str]()
            while True:
                number = draw.choice(SIGNALS)
                done = in_child(partial(audit, folder), kill=(draw.uniform(0, whole), number))
                after = in_child(partial(state, folder)).answer
                found["lost"] += len(before - set(after["keys"]))
                found["torn"] += len(after["damaged"])
                before = set(after["keys"])
                if done.code == 0:
                    break
                count[number.name] += 1
                found["refused"] += done.code == REFUSED
                found["crashed"] += done.code == CRASHED and "KeyboardInterrupt" not in done.said
            found["runs"] += 1
            found["different"] += after["tables"] != expected
    return found


def at_once(draw: Random, rounds: int, expected: str, together: int = 4) -> dict[str, Any]:
    """Run the same audit several times at once in one folder."""
    found = {"rounds": rounds, "together": together, "failed": 0, "torn": 0, "different": 0}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "run")
            children = []
            for _ in range(together):
                if (child := os.fork()) == 0:
                    _quietly(folder, draw.random() * 0.2)
                children.append(child)
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            after = in_child(partial(state, folder)).answer
            found["failed"] += sum(code != 0 for code in codes)
            found["torn"] += len(after["damaged"])
            found["different"] += after["tables"] != expected
    return found


def _quietly(folder: Path, delay: float) -> None:
    """Run the audit in this process and end it."""
    code = CRASHED
    try:
        time.sleep(delay)
        audit(folder)
        code = 0
    finally:
        os._exit(code)


def workers(draw: Random, rounds: int, expected: str) -> dict[str, Any]:
    """Kill a worker process, and then the process that started the workers."""
    found = {"workers": 0, "parents": 0, "said": 0, "left": 0, "torn": 0, "different": 0}
    for _ in range(rounds):
        for victim in ("workers", "parents"):
            with tempfile.TemporaryDirectory() as place:
                folder, pids = Path(place, "run"), Path(place, "pids")
                done = in_child(partial(_with_workers, folder, pids, victim == "workers", draw.random()), seconds=180)
                found[victim] += 1
                found["said"] += done.code == REFUSED and "a worker process died" in done.said
                started = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
                found["left"] += not _gone(started)
                assert in_child(partial(audit, folder)).code == 0
                after = in_child(partial(state, folder)).answer
                found["torn"] += len(after["damaged"])
                found["different"] += after["tables"] != expected
    return found


def _with_workers(folder: Path, pids: Path, worker: bool, when: float) -> None:
    """Run the audit with two workers; kill one of them, or this process, after a share of the cells."""
    from tools.chaos.audits import small
    from underfire.audit.run import Event, run

    def tell(event: Event) -> None:
        if event.cells >= 1 + int(when * event.of_cells / 2) and not pids.exists():
            children = [child.pid for child in multiprocessing.active_children() if child.pid]
            pids.write_text(" ".join(map(str, children)))
            os.kill(children[0] if worker else os.getpid(), signal.SIGKILL)

    run(small(), folder, workers=2, progress=tell)


def _gone(pids: list[int]) -> bool:
    """Return whether all processes end within 30 seconds."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in _status(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"
