"""Run an audit: compute the cells of its plan, in this process, in worker processes, or on a cluster."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from underfire import __version__
from underfire.audit.budget import KeptArrays
from underfire.audit.costs import Cost
from underfire.audit.executors import AutoExecutor, Executor, InProcess, LocalProcesses, cores
from underfire.audit.graph import Cell, Schedule
from underfire.audit.history import keep_head
from underfire.audit.kinds import KINDS
from underfire.audit.ledger import HEAD, Ledger, read_head, write_head
from underfire.audit.methods import complete
from underfire.audit.preparing import prepare
from underfire.audit.result import Inputs, Result
from underfire.audit.sampling import keep_sample
from underfire.audit.schema import AuditSpec
from underfire.audit.store import Damaged, Store
from underfire.audit.target import Target, open_target
from underfire.errors import InputError, LedgerError, MissingExtra, ModelNotice, UnderfireError, Unsupported

_WORKING_BYTES = 1e9
"""The size in bytes of the arrays that a run may keep beyond its budget while cells still need them."""


@dataclass(frozen=True)
class Event:
    """The progress of a run, reported before the first cell and after each cell.

    Attributes:
        done: number of images that this run has finished; an image counts once for every cell that passes it through
            the model.
        total: number of images that this run has to finish.
        cells: number of cells that this run has finished.
        of_cells: number of cells that this run has to finish.
        skipped: number of cells whose results the run folder already had.
        what: title of the cell that was just finished; empty before the first cell.
        idle_share: share of the workers' time so far in which they computed nothing, in [0, 1]; None without workers.
        damaged: at the first event, the files of the run folder that were damaged; their cells are computed again.
        costs: at the first event, an estimate of what the cells cost that this run has to finish.
        share: share of the work of this run that is finished, in [0, 1], by the estimated seconds of its cells.
    """

    done: int
    total: int
    cells: int
    of_cells: int
    skipped: int
    what: str
    idle_share: float | None = None
    damaged: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()
    share: float = 0.0


class Work:
    """A callable that computes a cell and writes its result.

    It can be pickled and sent to another process that has access to the same store.

    Args:
        spec: the complete spec from which the cells were planned.
        store: the store that results are read from and written to.
        target: the opened spec, for use in this process; every other process opens the spec itself, once.
    """

    def __init__(self, spec: AuditSpec, store: Store, target: Target | None = None) -> None:
        self.spec, self.store = spec, store
        self._inputs = target and Inputs(target, store, _compute)

    def __call__(self, cell: Cell) -> Cell:
        """Compute and write one cell, and return it."""
        inputs = self._inputs or _opened(self.spec.model_dump_json(), self.store.url)
        try:
            result = _compute(cell, inputs)
        except MissingExtra:
            raise
        except UnderfireError as error:
            raise type(error)(f"{cell.title}: {error}") from None
        result.write(self.store, cell, KINDS[cell.kind].schema)
        return cell

    def __reduce__(self) -> tuple[type[Work], tuple[AuditSpec, Store]]:
        return Work, (self.spec, self.store)


def _compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the result of a cell; a method that does not support the model leaves a result that states the reason."""
    kind = KINDS[cell.kind]
    try:
        return kind.compute(cell, inputs)
    except (Unsupported, RuntimeError) as error:
        reason = inputs.target.refusal(error)
        if cell.kind == "clean" or not reason:
            raise
        return Result(refused=reason)


@lru_cache(maxsize=1)
def _opened(spec: str, url: str) -> Inputs:
    """Return the inputs of cells for a spec as JSON and the URL of a store, opened once in each process.

    The process that planned the run has shown the notices about the model already.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelNotice)
        target = open_target(AuditSpec.model_validate_json(spec))
    return Inputs(target, Store(url), _compute)


def run(
    spec: AuditSpec,
    out: str | Path,
    *,
    workers: int | None = 0,
    progress: Callable[[Event], None] | None = None,
    executor: Executor | None = None,
    target: Target | None = None,
) -> Ledger:
    """Run an audit and return its ledger.

    Cells whose results are already in the folder are not computed again. So an interrupted run continues, and after
    a change of the spec only the cells that it affects are computed. Nothing is printed.

    Args:
        spec: the audit.
        out: the run folder, created if necessary; a path, or a URL that fsspec knows.
        workers: number of local worker processes; 0 computes in this process, and None starts one worker per core if
            the audit takes long. The results do not depend on it. A script that uses workers must guard its main
            code by `if __name__ == "__main__":`.
        progress: called with an `Event` before the first cell and after each cell.
        executor: computes the cells; None chooses one by the spec and `workers`.
        target: the opened spec, if the caller has the model and the images already; only this process can compute then.

    Raises:
        SpecError, ModelError, DataError: the spec, the model or the data is wrong; nothing has been written then.
        LedgerError: the folder contains other files, was written by another version, or cannot be written.
    """
    store = Store(out)
    _refuse_foreign(store, str(out))
    spec = complete(spec)
    with ExitStack() as stack:
        if executor is None:
            executor = InProcess() if target else stack.enter_context(choose_executor(spec, workers))
        # check everything and plan the cells before the folder is touched
        prepared = prepare(spec, store, target)
        spec, cells = prepared.spec, prepared.cells
        # store the plan
        store.clean_up()
        head: dict[str, Any] = {
            "underfire": __version__,
            "spec": spec.model_dump(),
            "environment": environment(prepared.target),
            "cells": [cell.as_dict() for cell in cells],
        }
        keep_head(store, head)
        write_head(store, head)
        keep_sample(store, prepared.target)
        # delete damaged results
        planned, keys = {cell.key for cell in cells}, store.keys()
        damaged = store.damaged(sorted(planned & keys))
        for key in damaged:
            store.delete(key)
        keys -= set(damaged)
        # find the cells that must be computed
        left = prepared.left(keys)
        schedule, kept = Schedule(left), KeptArrays(store, keys, left, 1e9 * spec.keep_gb)
        kept.trim()
        total, of_cells, done = sum(cell.images for cell in left.values()), len(left), 0
        skipped = len(planned - set(left))
        tell = progress or (lambda event: None)
        costs = tuple(prepared.estimates.costs(left.values()))
        tell(Event(0, total, 0, of_cells, skipped, "", damaged=tuple(damaged.values()), costs=costs))
        # compute them, each as soon as its needs are done
        seconds = {(cost.kind, cost.title): cost.seconds / cost.cells for cost in costs}
        whole, finished = sum(cost.seconds for cost in costs), 0.0
        work = Work(spec, store, prepared.target)
        for cell in executor.map(work, lambda: schedule.start(max(kept.room, _WORKING_BYTES))):
            schedule.finish(cell)
            kept.finished(cell)
            done, finished = done + cell.images, finished + seconds[cell.kind, cell.title]
            cells_done = of_cells - len(schedule.left)
            share = min(1.0, finished / whole) if whole else cells_done / of_cells
            tell(Event(done, total, cells_done, of_cells, skipped, cell.title, executor.idle_share, share=share))
        if executor.idle_share is not None:
            head["environment"]["idle_share"] = round(executor.idle_share, 4)
        # write the plan again, because an audit with another spec may have written its own meanwhile
        keep_head(store, head)
        write_head(store, head)
    return Ledger(out)


def _refuse_foreign(store: Store, out: str) -> None:
    """Raise LedgerError if the folder contains a run of another version, or files but no run.

    A run whose `ledger.json` is damaged or missing is continued if the folder has cells: the file is written anew.
    """
    if store.get_head(HEAD) is None:
        if store.holds_other_files():
            raise LedgerError(f"{out} contains files but no run; choose an empty or a new folder")
        return
    try:
        read_head(store, out)
    except Damaged:
        if not store.keys():
            raise


def choose_executor(spec: AuditSpec, workers: int | None) -> Executor:
    """Return the executor that the spec names; for `"auto"`, choose one by the number of workers.

    Raises:
        MissingExtra: the spec names Ray, which is not installed.
        InputError: the spec names Ray, and `workers` is given too.
    """
    if spec.executor.startswith("ray"):
        if workers:
            raise InputError(f"workers={workers} cannot be used with Ray, whose cluster has one worker per core")
        from underfire.audit.cluster import RayExecutor

        address = spec.executor if "://" in spec.executor else None
        return RayExecutor(address, gpus=1.0 if spec.device.startswith("cuda") else 0.0)
    if spec.executor == "processes":
        return LocalProcesses(workers or cores())
    if spec.executor == "auto" and workers is None and spec.device == "cpu":
        return AutoExecutor()
    return LocalProcesses(workers) if workers and spec.executor == "auto" else InProcess()


def environment(target: Target) -> dict[str, Any]:
    """Return the versions, the machine, the model and the data of a run, as plain values."""
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
        "notes": list(target.data.notes) or None,
        "answered": target.data.answered or None,
        "classes": target.preview.logits.shape[1],
        "labels": list(target.labels) if target.labels else None,
    }
