"""List the experiments; run one, and write its outcome as Markdown, JSON and pictures."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from underfire.errors import DataError, InputError, nearest
from underfire.files import atomic_write
from underfire.reproductions.experiments import MODULES

Progress = Callable[[int, int, str], None]  # parts done, parts in all, the current part


@dataclass(frozen=True)
class Setting:
    """The setting of an experiment.

    Attributes:
        data_root: the folder of real data and weights; None if there is none.
        out: the folder for the results; it may have the results of other experiments.
        work: a folder for files that a continued or repeated experiment uses again.
        scale: the size of the experiment: a small part as a test, the usual size, or the published size.
        seed: the seed of everything random.
        device: the device of the networks.
        progress: called with the parts done, the parts in all, and the current part.
    """

    data_root: Path | None
    out: Path
    work: Path
    scale: Literal["quick", "default", "full"] = "default"
    seed: int = 0
    device: str = "cpu"
    progress: Progress = lambda done, total, what: None

    @property
    def root(self) -> Path:
        """The folder of real data and weights.

        Raises:
            DataError: there is none.
        """
        if self.data_root is None or not self.data_root.is_dir():
            raise DataError(
                f"needs the folder of real data and weights, got {self.data_root or 'none'}; give --data or set "
                "UNDERFIRE_DATA"
            )
        return self.data_root

    @property
    def quick(self) -> bool:
        """Return whether only a small part is run."""
        return self.scale == "quick"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an experiment.

    Attributes:
        title: the title of the page, one line.
        source: the paper whose numbers are compared.
        spec: everything that determines the numbers, as plain values.
        columns: the headings of the table.
        rows: the cells of the table, as text.
        notes: paragraphs on how the table was measured, what it shows, and why it differs from the paper.
        results: the numbers behind the table, as plain values.
        pictures: SVG texts by name, written as `NAME-picture.svg`; the notes may show them.
    """

    title: str
    source: str
    spec: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    results: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        summary: one line on it.
        run: runs it at a setting.
        needs_data: whether it reads the folder of real data and weights.
    """

    summary: str
    run: Callable[[Setting], Outcome]
    needs_data: bool = True


def names() -> list[str]:
    """Return the names of the experiments, sorted."""
    return sorted(MODULES)


def summary(name: str) -> str:
    """Return what an experiment does, in one line."""
    return _experiment(name).summary


def _experiment(name: str) -> Experiment:
    """Return an experiment: a module with a function `run`, or a part in its `PARTS`."""
    if name not in MODULES:
        raise InputError(f"unknown reproduction {name!r}; {nearest(name, MODULES)}")
    place, _, part = MODULES[name].partition(":")
    module = import_module(place)
    if part:
        found: Experiment = module.PARTS[part]
        return found
    return Experiment((module.__doc__ or "").split("\n", 1)[0], module.run, getattr(module, "NEEDS_DATA", True))


def run(
    name: str,
    *,
    data_root: Path | None = None,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    quick: bool = False,
    full: bool = False,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run one experiment and write `NAME.md`, `NAME.json` and its pictures into the folder `out`.

    Args:
        name: one of `names()`.
        data_root: the folder of real data and weights; None is `$UNDERFIRE_DATA`. An experiment whose module has
            `NEEDS_DATA = False` runs without it.
        out: the folder to write into; it is created if missing.
        seed: the seed of everything random.
        device: the device of the networks.
        quick: run a small part, to check that the experiment runs; the output says so.
        full: run the experiment at the published size, which needs a GPU or days.
        work: the folder of what experiments need again, such as audits; None is `runs/reproductions`.
        progress: called with the parts done, the parts in all, and the current part.

    Returns:
        The path of the table, `NAME.md`.

    Raises:
        InputError: there is no such experiment, or it is to be quick and full. DataError: its data is missing.
    """
    experiment = _experiment(name)
    if quick and full:
        raise InputError("an experiment is run quick or full, not both")
    root = data_root or (Path(os.environ["UNDERFIRE_DATA"]) if os.environ.get("UNDERFIRE_DATA") else None)
    start = time.monotonic()
    scale: Literal["quick", "default", "full"] = "quick" if quick else "full" if full else "default"
    setting = Setting(
        root, out, work or Path("runs", "reproductions"), scale, seed, device, progress or Setting.progress
    )
    if experiment.needs_data:
        try:
            _ = setting.root
        except DataError as error:
            raise DataError(f"{name} {error}") from None
    outcome = experiment.run(setting)
    # the spec names files as anyone can find them, not where they are on this machine
    text = json.dumps(dict(outcome.spec), ensure_ascii=False, default=str)
    places = {str(root): "$UNDERFIRE_DATA"} if root else {}
    for place, word in {**places, str(setting.work): "WORK"}.items():
        text = text.replace(place, word)
    outcome = replace(outcome, spec=json.loads(text))
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{name}.md"
    for picture, svg in outcome.pictures.items():
        _write(out / f"{name}-{picture}.svg", svg)
    _write(out / f"{name}.json", _as_json(name, outcome, scale, time.monotonic() - start))
    _write(page, _as_markdown(name, outcome, scale))
    return page


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def _as_json(name: str, outcome: Outcome, scale: str, seconds: float) -> str:
    """Return the outcome of an experiment as JSON, with the versions and the time that it took."""
    import torch

    from underfire import __version__

    document = {
        "name": name,
        "scale": scale,
        "source": outcome.source,
        "spec": outcome.spec,
        "results": outcome.results,
        "seconds": round(seconds, 1),
        "environment": {
            "underfire": __version__,
            "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False, default=asdict) + "\n"


def _as_markdown(name: str, outcome: Outcome, scale: str) -> str:
    lines = [f"# {outcome.title}", "", f"Source of the published numbers: {outcome.source}.", ""]
    if scale == "quick":
        lines += ["**A quick run on a small part of the data: these numbers do not reproduce the experiment.**", ""]
    lines.append(table(outcome.columns, outcome.rows))
    for note in outcome.notes:
        lines += ["", note]
    lines += ["", f"Made by `underfire reproduce {name}`, with:", "", "```yaml"]
    lines += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in outcome.spec.items()]
    return "\n".join([*lines, "```", ""])
