"""Measure what an audit survives: `python -m tools.chaos [--seed 0] [--seconds 300]` writes docs/reliability.md."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console

from tools.chaos import faults, growth, hostile, kills
from tools.chaos.page import page
from underfire import __version__
from underfire.audit.executors import cores
from underfire.catalog import KINDS, cards

DOCS = Path(__file__).resolve().parents[2] / "docs"


def experiments(seconds: float) -> dict[str, Callable[[Random], Any]]:
    """Return all experiments by name; together, they take about `seconds`, and some more for the start of workers."""
    expected, whole = kills.reference()
    return {
        "damage": lambda draw: faults.damage(draw, 0.1 * seconds, expected),
        "kills": lambda draw: kills.kills(draw, 0.25 * seconds, expected, whole),
        "specs": lambda draw: hostile.specs(draw, int(3 * seconds)),
        "full disks": lambda draw: faults.full_disks(draw, 0.1 * seconds, expected),
        "commands": lambda draw: hostile.commands(draw, 0.2 * seconds),
        "model files": lambda draw: hostile.model_files(draw, 0.15 * seconds),
        "at once": lambda draw: kills.at_once(draw, max(1, round(seconds / 100)), expected),
        "growth": lambda draw: growth.growth(),
        "speedup": lambda draw: growth.speedup(),
        "workers": lambda draw: kills.workers(draw, 1, expected),
    }


def _import_all() -> None:
    """Import what child processes need, so that each of them starts at once."""
    for name in ("underfire.cli.runs", "underfire.cli.pictures", "underfire.report", "duckdb", "pyarrow.parquet"):
        import_module(name)
    for kind in KINDS:
        list(cards(kind))


def main() -> None:
    """Run the experiments one after the other, and write the results and the page after each of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of reliability.json and reliability.md")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="repeat these experiments alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _import_all()
    start, say = time.monotonic(), Console(stderr=True).print
    versions = {"underfire": __version__, "python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    found: dict[str, Any] = {"seed": options.seed, "seconds": 0, "cores": cores(), **versions}
    if options.only:
        found |= json.loads((options.out / "reliability.json").read_text(encoding="utf-8"))
    before = found["seconds"]
    for name, experiment in experiments(options.seconds).items():
        if options.only and name not in options.only:
            continue
        say(f"{time.monotonic() - start:4.0f} s  {name}")
        found[name] = experiment(Random(f"{options.seed} {name}"))
        found["seconds"] = before + round(time.monotonic() - start)
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (options.out / "reliability.json").write_text(text + "\n", encoding="utf-8")
        (options.out / "reliability.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
