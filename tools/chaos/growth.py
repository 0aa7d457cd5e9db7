"""Measure the memory and the time of an audit against its number of images, and of two workers against one."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tools.chaos.children import in_child
from underfire.audit.executors import cores
from underfire.audit.run import run
from underfire.audit.spec import parse_spec

COUNTS = (100, 200, 400, 800, 1600)


def growth(counts: tuple[int, ...] = COUNTS) -> list[dict[str, float]]:
    """Return the seconds and the largest memory of an audit for each number of images."""
    found = []
    for count in counts:
        done = in_child(partial(_audit, count, 0), seconds=600)
        assert done.code == 0, done.said[-500:]
        found.append({"images": count, "seconds": round(done.seconds, 2), "megabytes": round(done.megabytes)})
    return found


def speedup(count: int = 400) -> dict[str, float] | None:
    """Return the seconds of an audit with one and with two workers; None if this process may use one core only."""
    if cores() < 2:
        return None
    done = {workers: in_child(partial(_audit, count, workers), seconds=600) for workers in (1, 2)}
    assert all(outcome.code == 0 for outcome in done.values()), done
    return {f"{workers} workers": round(outcome.seconds, 2) for workers, outcome in done.items()}


def _audit(count: int, workers: int) -> None:
    """Audit the network of the package on some images."""
    spec = parse_spec(
        {
            "model": "zoo:cluttered_digits",
            "data": {"uri": "cluttered-digits:test", "n": count},
            "attacks": [{"name": "pgd", "norm": "linf", "eps": "2/255", "steps": 5}],
            "interpreters": ["gradient"],
            "masking": False,
            "shard_size": 50,
        }
    )
    with tempfile.TemporaryDirectory() as place:
        run(spec, Path(place, "run"), workers=workers)
