"""Where cells are computed: in this process, or in worker processes of this machine; a cluster is in `cluster`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from underfire.errors import InputError, UnderfireError

Cell = TypeVar("Cell")

_PATIENCE = 10.0
"""The time in seconds after which it is worth starting worker processes."""


class Executor(ABC):
    """Compute cells somewhere; a `with` block closes it.

    Attributes:
        idle_share: the part of the workers' time, from 0 to 1, in which they computed no cell; None where nothing
            waits for anything.
    """

    idle_share: float | None = None

    @abstractmethod
    def map(self, work: Callable[[Cell], Cell], cells: Sequence[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell, and yield each cell when it is done, in any order.

        The cells do not depend on each other. They are begun in the order given, so the longest should come first.
        Called once per wave of cells; workers stay from one wave to the next.

        Raises:
            UnderfireError: what `work` raised, or a worker died.
        """

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """End the workers at once, whatever they are doing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WorkerTime:
    """Add up how long workers computed, and how long they could have; it starts when it is made.

    Attributes:
        busy: the seconds that workers spent on cells that have come back.
        available: the seconds that all workers together had.
    """

    def __init__(self) -> None:
        self.busy, self.available, self._last = 0.0, 0.0, time.monotonic()

    def advance(self, workers: int) -> None:
        """Count the time since the last call, in which there were so many workers."""
        now = time.monotonic()
        self.available += workers * (now - self._last)
        self._last = now

    @property
    def idle_share(self) -> float | None:
        """The share of the time in which workers waited; None before the first cell."""
        return max(0.0, 1 - self.busy / self.available) if self.busy and self.available else None


def timed(work: Callable[[Cell], Cell], cell: Cell) -> tuple[Cell, float]:
    """Return what `work` returns for `cell`, and how many seconds it took."""
    start = time.monotonic()
    return work(cell), time.monotonic() - start


class InProcess(Executor):
    """Compute one cell after the other in this process."""

    def map(self, work: Callable[[Cell], Cell], cells: Sequence[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell in order."""
        return map(work, cells)


class LocalProcesses(Executor):
    """Compute cells in worker processes on this machine, each with its share of the cores.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._pipe: tuple[Any, Any] | None = None
        self._time = WorkerTime()

    def map(self, work: Callable[[Cell], Cell], cells: Sequence[Cell]) -> Iterator[Cell]:
        """Call `work` on the cells, as many at a time as there are workers."""
        pool = self._open()
        try:
            for future in as_completed([pool.submit(timed, work, cell) for cell in cells]):
                cell, seconds = future.result()
                self._time.busy += seconds
                self._time.advance(self.workers)
                self.idle_share = self._time.idle_share
                yield cell
        except BrokenProcessPool:
            self.close()
            reason = "out of memory, perhaps; what is finished is kept: run again, with fewer workers"
            raise UnderfireError(f"a worker process died ({reason})") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers at once, whatever they are doing."""
        pool, pipe, self._pool, self._pipe = self._pool, self._pipe, None, None
        if pool is not None and pipe is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            for end in pipe:
                end.close()  # which every worker watches for
            pool.shutdown()

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pipe = context.Pipe()
            settings = (max(1, cores() // self.workers), self._pipe[1])
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=settings)
            self._time = WorkerTime()
        return self._pool


class AutoExecutor(Executor):
    """Compute in this process at first, and what is then left in worker processes, one per core.

    Worker processes take seconds to start, so a short job is done before they would have begun. Every process uses one
    thread of torch: on cores that others use too, torch's pool of threads is many times slower.
    """

    def __init__(self) -> None:
        # Opening the model and the images counts: where it is slow, the cells are slow too.
        self._started = time.monotonic()
        self._processes: LocalProcesses | None = None

    def map(self, work: Callable[[Cell], Cell], cells: Sequence[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell, here or in worker processes."""
        left = list(cells)
        while left and (time.monotonic() - self._started < _PATIENCE or min(len(left), cores()) == 1):
            yield work(left.pop(0))
        if left:
            self._processes = self._processes or LocalProcesses(cores())
            yield from self._processes.map(work, left)
            self.idle_share = self._processes.idle_share

    def close(self) -> None:
        """End the workers at once, whatever they are doing."""
        if self._processes is not None:
            self._processes.close()


def _start_worker(threads: int, parent: Connection) -> None:
    """Take a share of the cores, and end when the other end of `parent` is closed: by the parent, or by its death."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(threads)

    def watch() -> None:
        try:
            parent.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
