"""Run the parts of `make chaos` one after the other, and keep what is finished whatever happens to the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

Experiment = Callable[[Random], Any]


def rounds(seconds: float, least: int = 1) -> Iterator[int]:
    """Yield 0, 1, 2, ... until the time is up, and `least` numbers in any case."""
    end, i = time.monotonic() + seconds, 0
    while i < least or time.monotonic() < end:
        yield i
        i += 1


def run_parts(
    parts: Mapping[str, Experiment],
    seed: int,
    say: Callable[[str], None],
    keep: Callable[[str, Any, float], None],
) -> list[str]:
    """Run every part, and return the names of those that have no result.

    A part that fails does not end the others. Ctrl-C ends the part in progress and those after it.

    Args:
        parts: the parts by name, each a function of random numbers.
        seed: the seed of all random numbers; those of a part depend on its name, and not on the other parts.
        say: prints one line.
        keep: called with the name, the result and the seconds of each finished part.
    """
    start, left = time.monotonic(), list(parts)
    for i, (name, experiment) in enumerate(parts.items(), 1):
        begin = time.monotonic()
        say(f"{begin - start:5.0f} s  part {i} of {len(parts)}: {name}")
        try:
            result = experiment(Random(f"{seed} {name}"))
        except KeyboardInterrupt:
            say(f"interrupted; the finished parts are kept. The others: --only {' '.join(left)}")
            return left
        except Exception:  # noqa: BLE001 - a part that fails must not cost the others
            say(f"{name} failed:\n{traceback.format_exc()}")
            continue
        left.remove(name)
        keep(name, result, time.monotonic() - begin)
    return left
