"""Write what a training reports: to a file of JSON lines, to TensorBoard, to MLflow. Each is a `watch` of `fit`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underfire.errors import InputError
from underfire.extras import import_extra
from underfire.files import as_path, atomic_write
from underfire.learning.reports import Report
from underfire.validate import at_least_one


@dataclass(eq=False)
class JsonLines:
    """Write reports to a file, each as one line of JSON with the names of the attributes of `Report`.

    The training may be continued from a checkpoint: lines of steps that it repeats are replaced. NaN is null.

    Attributes:
        path: the file.
        every: number of steps between two lines; a step with metrics or notes always has one.
    """

    path: str | os.PathLike[str]
    every: int = 1
    _begun: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        at_least_one(every=self.every)
        self.path = as_path(self.path)

    def __call__(self, report: Report) -> None:
        """Write a report.

        Raises:
            InputError: the file exists and is not such a ledger, or its folder cannot be written to.
        """
        path = Path(self.path)
        if not self._begun:
            earlier = [line for line in _lines(path) if json.loads(line)["step"] < report.step]
            with atomic_write(path) as part:
                part.write_text("".join(f"{line}\n" for line in earlier), encoding="utf-8")
            self._begun = True
        if report.step % self.every and not (report.metrics or report.notes):
            return
        losses = [_finite(float(loss)) for loss in report.losses]
        metrics = {name: _finite(value) for name, value in report.metrics.items()}
        facts = {"step": report.step, "steps": report.steps, "losses": losses, "rate": report.rate}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**facts, "metrics": metrics, "notes": report.notes}) + "\n")


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the reports in a file of `JsonLines`, in the order of their steps.

    Raises:
        InputError: the file is not such a ledger.
    """
    return [json.loads(line) for line in _lines(as_path(path))]


@dataclass(eq=False)
class TensorBoard:
    """Write reports to a folder that TensorBoard shows; needs the package `tensorboard`.

    Attributes:
        folder: the folder of the training.

    Raises:
        MissingExtra: the package is not installed.
    """

    folder: str | os.PathLike[str]
    _writer: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        import_extra("tensorboard")

    def __call__(self, report: Report) -> None:
        """Write a report; what an interrupted training wrote of this step and later ones is hidden."""
        if self._writer is None:
            made = import_extra("torch.utils.tensorboard").SummaryWriter
            self._writer = made(os.fspath(self.folder), purge_step=report.step)
        for name, value in _numbers(report).items():
            self._writer.add_scalar(name, value, report.step)
        for note in report.notes:
            self._writer.add_text("notes", note, report.step)
        if report.metrics or report.step == report.steps:
            self._writer.flush()


@dataclass(eq=False)
class MLflow:
    """Write reports to the active run of MLflow, or to a new one; needs the package `mlflow`.

    Attributes:
        experiment: the name of the experiment of a new run; None is that of MLflow.

    Raises:
        MissingExtra: the package is not installed.
    """

    experiment: str | None = None

    def __post_init__(self) -> None:
        mlflow = import_extra("mlflow")
        if self.experiment is not None:
            mlflow.set_experiment(self.experiment)

    def __call__(self, report: Report) -> None:
        """Write a report; notes are tags of the run."""
        mlflow = import_extra("mlflow")
        mlflow.log_metrics(_numbers(report), step=report.step)
        for note in report.notes:
            mlflow.set_tag(f"note.{report.step}", note)


def _numbers(report: Report) -> dict[str, float]:
    """Return the numbers of a report by name."""
    one = len(report.losses) == 1
    losses = {"loss" if one else f"loss/{i}": float(loss) for i, loss in enumerate(report.losses)}
    return {**losses, "rate": report.rate, **report.metrics}


def _finite(value: float) -> float | None:
    """Return a number, or None for one that JSON does not have."""
    return value if math.isfinite(value) else None


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a ledger; one that was not finished is left out.

    Raises:
        InputError: a line is not a report.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            found = None
        if not (isinstance(found, Mapping) and isinstance(found.get("step"), int)):
            raise InputError(
                f"line {number} of {str(path)!r} is not the report of a training step; choose another file"
            )
    return lines
