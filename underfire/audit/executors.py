"""Executors that compute cells in this process or in worker processes of this machine; `cluster` has one for Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

from underfire.allocation import keep_freed_memory
from underfire.errors import InputError, UnderfireError

Cell = TypeVar("Cell")
Ready = Callable[[], Sequence[Cell]]

_PATIENCE = 10.0
"""The time in seconds after which `AutoExecutor` starts worker processes."""


class Executor(ABC):
    """The interface of an executor, which computes cells; a `with` block closes it.

    Attributes:
        idle_share: share of the workers' time in which they computed no cell, in [0, 1]; None without workers.
    """

    idle_share: float | None = None

    @abstractmethod
    def map(self, work: Callable[[Cell], Cell], ready: Ready[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell that `ready` returns, and yield each cell when it is done, in any order.

        Args:
            work: computes a cell and returns it.
            ready: returns the cells that can be started now and that it has not returned before, the longest first. It
                is called at the beginning and after each yielded cell, because other cells may need that cell. The
                iterator ends when no cell is running and `ready` returns no cells.

        Raises:
            UnderfireError: `work` raised it, or a worker died.
        """

    def close(self) -> None:  # noqa: B027 - most executors hold nothing
        """Stop the workers at once, even while they compute."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WorkerTime:
    """Measure the time in which workers computed and the time that was available to them, since the creation.

    Attributes:
        busy: seconds that workers spent on finished cells; the executor adds to it.
        available: seconds that all workers together had.
    """

    def __init__(self) -> None:
        self.busy, self.available, self._last = 0.0, 0.0, time.monotonic()

    def advance(self, workers: int) -> None:
        """Add the time since the last call, multiplied by the number of workers in that time."""
        now = time.monotonic()
        self.available += workers * (now - self._last)
        self._last = now

    @property
    def idle_share(self) -> float | None:
        """The share of the available time in which workers waited; None before the first finished cell."""
        return max(0.0, 1 - self.busy / self.available) if self.busy and self.available else None


def timed(work: Callable[[Cell], Cell], cell: Cell) -> tuple[Cell, float]:
    """Return the result of `work(cell)`, and the seconds that it took."""
    start = time.monotonic()
    return work(cell), time.monotonic() - start


class InProcess(Executor):
    """An executor that computes one cell after the other in this process."""

    def map(self, work: Callable[[Cell], Cell], ready: Ready[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell in order."""
        queue = deque(ready())
        while queue:
            yield work(queue.popleft())
            queue.extend(ready())


class LocalProcesses(Executor):
    """An executor that computes cells in worker processes on this machine, each with an equal share of the cores.

    Args:
        workers: number of worker processes.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._pipe: tuple[Any, Any] | None = None
        self._time = WorkerTime()

    def map(self, work: Callable[[Cell], Cell], ready: Ready[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell in the worker processes."""
        pool = self._open()
        finished: SimpleQueue[Future[tuple[Cell, float]]] = SimpleQueue()
        running = 0
        try:
            while True:
                for cell in ready():
                    pool.submit(timed, work, cell).add_done_callback(finished.put)
                    running += 1
                if not running:
                    return
                cell, seconds = finished.get().result()
                running -= 1
                self._time.busy += seconds
                self._time.advance(self.workers)
                self.idle_share = self._time.idle_share
                yield cell
        except BrokenProcessPool:
            self.close()
            reason = "out of memory, perhaps; finished results are kept: run again with fewer workers"
            raise UnderfireError(f"a worker process died ({reason})") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers at once, even while they compute."""
        pool, pipe, self._pool, self._pipe = self._pool, self._pipe, None, None
        if pool is not None and pipe is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            for end in pipe:
                end.close()  # every worker watches the pipe, and exits when it is closed
            pool.shutdown()

    def _open(self) -> ProcessPoolExecutor:
        """Return the pool of worker processes; start it at the first call."""
        if self._pool is None:
            context = _context()
            self._pipe = context.Pipe()
            settings = (threads_per_worker(self.workers), self._pipe[1], dict(os.environ))
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=settings)
            self._time = WorkerTime()
        return self._pool


class AutoExecutor(Executor):
    """An executor that starts in this process, and after some seconds continues in worker processes, one per core.

    Worker processes take seconds to start, so a short job is finished before they could begin. Every process uses one
    thread of torch: on cores that other programs use, too, torch's thread pool is many times slower.
    """

    def __init__(self) -> None:
        # The time of loading the model and the images counts: if loading is slow, the cells are slow, too.
        self._started = time.monotonic()
        self._processes: LocalProcesses | None = None

    def map(self, work: Callable[[Cell], Cell], ready: Ready[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell, here or in worker processes."""
        # in this process, at first and while there is nothing to share
        queue = deque(ready())
        while queue and (time.monotonic() - self._started < _PATIENCE or min(len(queue), cores()) == 1):
            yield work(queue.popleft())
            queue.extend(ready())
        # in worker processes, with the remaining cells as the first that are ready
        if queue:
            self._processes = LocalProcesses(cores())
            first = iter([list(queue)])
            for cell in self._processes.map(work, lambda: next(first, None) or ready()):
                self.idle_share = self._processes.idle_share
                yield cell

    def close(self) -> None:
        """Stop the workers at once, even while they compute."""
        if self._processes is not None:
            self._processes.close()


def _context() -> Any:
    """Return the way in which worker processes start.

    On Linux, they are copies of one process that has imported what all of them need. It computes nothing, so that it
    has no threads and no CUDA context, which copies could not use. Elsewhere, every worker imports this itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "underfire.audit.run"])
    return context


def _start_worker(threads: int, parent: Connection, environment: Mapping[str, str]) -> None:
    """Set up a worker, which exits when the parent closes its end of the pipe or dies."""
    import torch

    os.environ.clear()  # it has that of the time at which the first worker started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    keep_freed_memory()
    torch.set_num_threads(threads)

    def watch() -> None:
        try:
            parent.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def threads_per_worker(workers: int) -> int:
    """Return the number of torch's threads in each worker: an equal share of the cores.

    It is smaller if OMP_NUM_THREADS or `torch.set_num_threads` allow this process fewer threads than that.
    """
    import torch

    return max(1, min(cores() // workers, torch.get_num_threads()))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
