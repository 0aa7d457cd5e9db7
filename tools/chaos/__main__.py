"""Measure what an audit survives: `python -m tools.chaos` writes docs/reliability.md, in about 20 minutes on two cores.

`--only kills growth` repeats some parts. A command that is interrupted keeps the parts that it has finished.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tools.chaos import faults, growth, hostile, kills
from tools.chaos.page import ROWS, page
from tools.chaos.parts import Experiment, run_parts
from underfire import __version__
from underfire.audit.executors import cores
from underfire.catalog import KINDS, cards

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECONDS = 600.0


def experiments(seconds: float) -> dict[str, Experiment]:
    """Return all parts by name; those that can be repeated take about `seconds` together, the others some minutes."""

    @cache
    def undisturbed() -> tuple[str, float]:
        return kills.reference()

    def compared(part: Callable[..., Any], *given: Any) -> Experiment:
        """Return a part that compares its results with those of a run that nothing disturbs."""
        return lambda draw: part(draw, *given, undisturbed()[0])

    return {
        "damage": compared(faults.damage, 0.1 * seconds),
        "kills": lambda draw: kills.kills(draw, 0.25 * seconds, *undisturbed()),
        "specs": lambda draw: hostile.specs(draw, int(3 * seconds)),
        "full-disks": compared(faults.full_disks, 0.1 * seconds),
        "commands": lambda draw: hostile.commands(draw, 0.2 * seconds),
        "model-files": lambda draw: hostile.model_files(draw, 0.15 * seconds),
        "at-once": compared(kills.at_once, max(1, round(seconds / 100))),
        "workers": compared(kills.workers, max(1, round(seconds / 200))),
        "growth": lambda draw: growth.growth(),
        "speedup": lambda draw: growth.speedup(),
    }


def _import_all() -> None:
    """Import what child processes need, so that each of them starts at once."""
    for name in ("underfire.cli.runs", "underfire.cli.pictures", "underfire.report", "duckdb", "pyarrow.parquet"):
        import_module(name)
    for kind in KINDS:
        list(cards(kind))


def main() -> None:
    """Run the parts one after the other, and write the results and the page after each of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the time of the parts that can be repeated")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of reliability.json and reliability.md")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="repeat these parts, and keep the others")
    options = parser.parse_args()
    parts = experiments(options.seconds)
    if unknown := [name for name in options.only if name not in parts]:
        parser.error(f"unknown part {unknown[0]!r}; parts: {', '.join(parts)}")
    torch.set_num_threads(1)
    _import_all()
    versions = {"underfire": __version__, "python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    found: dict[str, Any] = {"seed": options.seed, "seconds": 0, "cores": cores(), **versions}
    place = options.out / "reliability.json"
    if options.only and place.exists():
        found = {**json.loads(place.read_text(encoding="utf-8")), **versions, "cores": cores()}

    def keep(name: str, result: Any, seconds: float) -> None:
        """Write the results so far, and say those of a part in one line each."""
        found[name] = result
        found["seconds"] += round(seconds)
        place.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (options.out / "reliability.md").write_text(page(found), encoding="utf-8")
        for what, often, outcome in ROWS[name](result) if name in ROWS else [(name, "1", str(result))]:
            say(f"         {what} ({often}): {outcome}")

    say = partial(Console(stderr=True, soft_wrap=True, highlight=False).print, markup=False)
    chosen = {name: part for name, part in parts.items() if name in (options.only or parts)}
    if run_parts(chosen, options.seed, say, keep):
        sys.exit(1)


if __name__ == "__main__":
    main()
