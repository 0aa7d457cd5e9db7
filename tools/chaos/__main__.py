"""Measure what an audit survives: `python -m tools.chaos [--seed 0] [--seconds 300]` writes docs/reliability.md."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console

from tools.chaos import faults, growth, hostile, kills
from tools.chaos.page import page
from underfire import __version__
from underfire.audit.executors import cores

DOCS = Path(__file__).resolve().parents[2] / "docs"


def measure(seed: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every experiment and return its numbers as plain values.

    Args:
        seed: the seed of all random choices; every experiment has random numbers of its own.
        seconds: about the time of all experiments together.
        say: called with the name of each experiment before it starts.
    """
    torch.set_num_threads(1)
    expected, whole = kills.reference()
    rounds = max(1, round(seconds / 100))
    experiments: dict[str, Callable[[Random], Any]] = {
        "kills": lambda draw: kills.kills(draw, 0.3 * seconds, expected, whole),
        "at once": lambda draw: kills.at_once(draw, rounds, expected),
        "workers": lambda draw: kills.workers(draw, 1, expected),
        "full disks": lambda draw: faults.full_disks(draw, 2 * rounds, expected),
        "damage": lambda draw: faults.damage(draw, 0.15 * seconds, expected),
        "specs": lambda draw: hostile.specs(draw, int(2 * seconds)),
        "commands": lambda draw: hostile.commands(),
        "model files": lambda draw: hostile.model_files(),
        "growth": lambda draw: growth.growth(),
        "speedup": lambda draw: growth.speedup(),
    }
    start, found = time.monotonic(), dict[str, Any]()
    for name, experiment in experiments.items():
        say(f"{time.monotonic() - start:4.0f} s  {name}")
        found[name] = experiment(Random(f"{seed} {name}"))
    about = {"underfire": __version__, "python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    return {"seed": seed, "seconds": round(time.monotonic() - start), "cores": cores(), **about, **found}


def main() -> None:
    """Measure, and write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of reliability.json and reliability.md")
    options = parser.parse_args()
    found = measure(options.seed, options.seconds, Console(stderr=True).print)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (options.out / "reliability.json").write_text(text + "\n", encoding="utf-8")
    (options.out / "reliability.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
