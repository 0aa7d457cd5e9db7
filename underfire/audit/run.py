"""Running a plan: here, in local worker processes, or on anything that can map a function over cells."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from underfire import __version__
from underfire.audit.cells import compute
from underfire.audit.executors import AutoExecutor, Executor, InProcess, LocalProcesses, cores
from underfire.audit.ledger import Ledger, finished, write_cell, write_head, writing
from underfire.audit.methods import complete
from underfire.audit.plan import Cell, plan
from underfire.audit.preflight import preflight
from underfire.audit.spec import AuditSpec
from underfire.audit.target import Target, open_target
from underfire.errors import LedgerError, UnderfireError


@dataclass(frozen=True)
class Event:
    """How far a run is; sent once before the first cell and again after each.

    Attributes:
        done: images finished by this run, an image counting once per cell.
        total: images to be done by this run.
        cells: cells finished by this run.
        of_cells: cells to be done by this run.
        skipped: cells that were there from before.
        what: what has just been finished; empty at first.
    """

    done: int
    total: int
    cells: int
    of_cells: int
    skipped: int
    what: str


class Work:
    """Computes a cell and writes its result; can be pickled and sent to another process that sees the same folder.

    Args:
        spec: complete, as the cells were planned from.
        root: the ledger.
        target: the spec, opened, for use in this process; elsewhere it is opened once per process.
    """

    def __init__(self, spec: AuditSpec, root: Path, target: Target | None = None) -> None:
        self.spec, self.root, self.target = spec, root, target

    def __call__(self, cell: Cell) -> Cell:
        """Compute and write one cell, and give it back."""
        target = self.target or _opened(self.spec.model_dump_json())
        try:
            result = compute(cell, target)
        except UnderfireError as error:
            raise type(error)(f"{cell.title}: {error}") from None
        write_cell(self.root, cell.key, result.tables, result.gallery, result.ids)
        return cell

    def __reduce__(self) -> tuple[type[Work], tuple[AuditSpec, Path]]:
        return Work, (self.spec, self.root)


@lru_cache(maxsize=1)
def _opened(spec: str) -> Target:
    return open_target(AuditSpec.model_validate_json(spec))


def run(
    spec: AuditSpec,
    out: str | Path,
    *,
    workers: int | None = 0,
    progress: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
) -> Ledger:
    """Carry out an audit, or what is left of it, and return its ledger.

    Cells that the folder already holds are not computed again, so a run that was ended at any moment continues, and a
    changed spec costs only what changed. Prints nothing.

    Args:
        spec: what to do.
        out: the run folder, made if need be.
        workers: local worker processes; 0 computes in this one, None in as many as there are cores if it takes long.
            The numbers are the same. A script that asks for workers needs `if __name__ == "__main__":`.
        progress: called with an `Event` before the first cell and after each.
        executor: where cells are computed, instead of `workers`.

    Raises:
        SpecError, ModelError, DataError: something is wrong, found before the folder is touched.
        LedgerError: the folder is in use, holds something else, was written by a newer version, or the disk is full.
    """
    root = Path(out)
    if (root / "ledger.json").exists():
        Ledger(root)  # refuse a newer one before any work
    elif root.is_dir() and any(entry.name not in ("cells", "lock") for entry in root.iterdir()):
        raise LedgerError(f"{root} holds other files and no run; choose an empty or a new folder")
    spec = complete(spec)
    executor = executor or _executor(workers, spec.device)
    target = open_target(spec)
    preflight(target)
    cells = plan(spec, target)
    with writing(root):
        known = finished(root)
        todo = [cell for cell in cells if cell.key not in known]
        todo.sort(key=lambda cell: cell.kind != "masking")  # the longest cell, which would keep all others waiting
        head = {"underfire": __version__, "spec": spec.model_dump(), "environment": environment(target)}
        write_head(root, {**head, "cells": [cell.as_dict() for cell in cells]})
        total, skipped, done = sum(cell.images for cell in todo), len(cells) - len(todo), 0
        tell = progress or (lambda event: None)
        tell(Event(0, total, 0, len(todo), skipped, ""))
        if todo:
            with executor:
                for count, cell in enumerate(executor.map(Work(spec, root, target), todo), 1):
                    done += cell.images
                    tell(Event(done, total, count, len(todo), skipped, cell.title))
    return Ledger(root)


def _executor(workers: int | None, device: str) -> Executor:
    if workers is None and device == "cpu":
        return AutoExecutor()
    return LocalProcesses(workers) if workers else InProcess()


def environment(target: Target) -> dict[str, Any]:
    """Where and on what a run was made, as plain values."""
    device = target.spec.device
    return {
        "underfire": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cores": cores(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": target.spec.model.uri,
        "parameters": sum(parameter.numel() for parameter in target.model.parameters()),
        "weights": target.weights,
        "data": target.data.name,
        "images": len(target.data),
        "labels": list(target.labels) if target.labels else None,
    }
