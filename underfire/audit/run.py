"""Carry out the plan of an audit: wave after wave of cells, here, in worker processes, or on a cluster."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from underfire import __version__
from underfire.audit.executors import AutoExecutor, Executor, InProcess, LocalProcesses, cores
from underfire.audit.graph import Cell, next_wave, readers, to_compute
from underfire.audit.kinds import KINDS
from underfire.audit.ledger import HEAD, Ledger, read_head, write_head
from underfire.audit.methods import complete
from underfire.audit.plan import plan
from underfire.audit.preflight import preflight
from underfire.audit.result import Inputs, arrays_key
from underfire.audit.schema import AuditSpec
from underfire.audit.store import Store
from underfire.audit.target import Target, open_target
from underfire.errors import InputError, LedgerError, MissingExtra, UnderfireError

_WORKING_BYTES = 1e9
"""The size of the arrays that a run may have on disk beyond its budget while cells still need them."""


@dataclass(frozen=True)
class Event:
    """How far a run is; sent once before the first cell and again after each.

    Attributes:
        done: images finished by this run; an image counts once for every cell that asks the model about it.
        total: images to be done by this run.
        cells: cells finished by this run.
        of_cells: cells to be done by this run.
        skipped: cells that were done before.
        what: what has just been finished; empty at first.
        idle_share: the part of the workers' time so far, from 0 to 1, in which they computed nothing; None without
            workers.
    """

    done: int
    total: int
    cells: int
    of_cells: int
    skipped: int
    what: str
    idle_share: float | None = None


class Work:
    """Compute a cell and write its result; can be pickled and sent to another process that reaches the same store.

    Args:
        spec: complete, as the cells were planned from.
        store: where results are read and written.
        target: the spec, opened, for use in this process; elsewhere it is opened once per process.
    """

    def __init__(self, spec: AuditSpec, store: Store, target: Target | None = None) -> None:
        self.spec, self.store = spec, store
        self._inputs = target and Inputs(target, store)

    def __call__(self, cell: Cell) -> Cell:
        """Compute and write one cell, and return it."""
        inputs = self._inputs or _opened(self.spec.model_dump_json(), self.store.url)
        kind = KINDS[cell.kind]
        try:
            result = kind.compute(cell, inputs)
        except MissingExtra:
            raise
        except UnderfireError as error:
            raise type(error)(f"{cell.title}: {error}") from None
        result.write(self.store, cell, kind.schema)
        return cell

    def __reduce__(self) -> tuple[type[Work], tuple[AuditSpec, Store]]:
        return Work, (self.spec, self.store)


@lru_cache(maxsize=1)
def _opened(spec: str, url: str) -> Inputs:
    return Inputs(open_target(AuditSpec.model_validate_json(spec)), Store(url))


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
    changed spec costs only what it changes. Nothing is printed.

    Args:
        spec: what to do.
        out: the run folder, made if need be; a path, or a URL that fsspec knows.
        workers: local worker processes; 0 computes in this one, None in as many as there are cores if it takes long.
            The numbers are the same. A script that asks for workers needs `if __name__ == "__main__":`.
        progress: called with an `Event` before the first cell and after each.
        executor: where cells are computed, instead of what the spec and `workers` say.

    Raises:
        SpecError, ModelError, DataError: something is wrong, found before the folder is touched.
        LedgerError: the folder holds something else, was written by another version, or cannot be written.
    """
    store = Store(out)
    _refuse_foreign(store, str(out))
    spec = complete(spec)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(spec, workers))
        target = open_target(spec)
        preflight(target)
        cells = plan(spec, target)
        store.clean_up()
        head: dict[str, Any] = {
            "underfire": __version__,
            "spec": spec.model_dump(),
            "environment": environment(target),
            "cells": [cell.as_dict() for cell in cells],
        }
        write_head(store, head)
        keys = store.keys()
        left = to_compute(cells, keys, {cell.key for cell in cells if arrays_key(cell.key) in keys})
        kept = _Kept(store, keys, left, 1e9 * spec.keep_gb)
        total, of_cells, done = sum(cell.images for cell in left.values()), len(left), 0
        skipped = len({cell.key for cell in cells} - set(left))
        tell = progress or (lambda event: None)
        tell(Event(0, total, 0, of_cells, skipped, ""))
        while left:
            wave = next_wave(left, max(kept.room, _WORKING_BYTES))
            wave.sort(key=lambda cell: cell.kind != "masking")  # the longest cell, which would keep all others waiting
            for cell in executor.map(Work(spec, store, target), wave):
                del left[cell.key]
                kept.finished(cell)
                done += cell.images
                tell(Event(done, total, of_cells - len(left), of_cells, skipped, cell.title, executor.idle_share))
        if executor.idle_share is not None:
            head["environment"]["idle_share"] = round(executor.idle_share, 4)
            write_head(store, head)
    return Ledger(out)


class _Kept:
    """The arrays that the store keeps: those over the budget are dropped, the oldest first, once nothing needs them.

    Args:
        store: where they are.
        keys: of everything in the store.
        left: the cells that are still to be computed.
        limit: the budget in bytes.
    """

    def __init__(self, store: Store, keys: set[str], left: dict[str, Cell], limit: float) -> None:
        self._store, self._limit = store, limit
        self._waiting = readers(left.values())
        self._sizes = {key: store.size(key) for key in sorted(keys) if key == arrays_key(key.split("-")[0])}

    @property
    def room(self) -> float:
        """How many bytes are left of the budget."""
        return self._limit - sum(self._sizes.values())

    def finished(self, cell: Cell) -> None:
        """Count the arrays of a finished cell, and drop what nothing needs any more."""
        for need in cell.needs.values():
            self._waiting.get(need.key, set()).discard(cell.key)
        if cell.kept_bytes:
            key = arrays_key(cell.key)
            self._sizes[key] = self._store.size(key)
        for key in list(self._sizes) if self.room < 0 else ():
            if not any(arrays_key(needed) == key and waiting for needed, waiting in self._waiting.items()):
                self._store.delete(key)
                del self._sizes[key]
                if self.room >= 0:
                    return


def _refuse_foreign(store: Store, out: str) -> None:
    """Raise LedgerError if the folder has a run of another version, or other files and no run."""
    if store.get_head(HEAD) is not None:
        read_head(store, out)
        return
    folder = Path(store.url)
    if folder.is_dir() and any(entry.name != "cells" for entry in folder.iterdir()):
        raise LedgerError(f"{out} holds other files and no run; choose an empty or a new folder")


def choose_executor(spec: AuditSpec, workers: int | None) -> Executor:
    """Return what computes the cells: as the spec says, or, if that is `"auto"`, as the number of workers says.

    Raises:
        MissingExtra: the spec asks for Ray, which is not installed. InputError: it asks for Ray and for workers.
    """
    if spec.executor.startswith("ray"):
        if workers:
            raise InputError(f"workers={workers} is for this machine; a Ray cluster has as many workers as cores")
        from underfire.audit.cluster import RayExecutor

        address = spec.executor if "://" in spec.executor else None
        return RayExecutor(address, gpus=1.0 if spec.device.startswith("cuda") else 0.0)
    if spec.executor == "processes":
        return LocalProcesses(workers or cores())
    if spec.executor == "auto" and workers is None and spec.device == "cpu":
        return AutoExecutor()
    return LocalProcesses(workers) if workers and spec.executor == "auto" else InProcess()


def environment(target: Target) -> dict[str, Any]:
    """Return where and on what a run was made, as plain values."""
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
