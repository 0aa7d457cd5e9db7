"""Cells on a Ray cluster: only cells travel; workers load the model and the data, and write results to the store."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from underfire import __version__
from underfire.audit.executors import Cell, Executor, WorkerTime, timed
from underfire.errors import InputError, MissingExtra, UnderfireError

_ATTEMPTS_AFTER_LOSS = 5
"""How often a cell is computed again after the node or the process that computed it has died."""

_STORE = 100 * 2**20
"""The size in bytes of Ray's object store on this machine, which holds nothing large."""

_NO_WORKERS = 60.0
"""The time in seconds after which a cluster without a single worker is given up."""


class RayExecutor(Executor):
    """Compute cells on a Ray cluster, one core for each, or a share of a GPU.

    A cell whose node is lost is computed again on another. An `UnderfireError` of a cell ends the run at once. The
    nodes need the same versions of Python, Ray and underfire, and must reach the model, the data and the store under
    the names that the spec gives them.

    Args:
        address: `ray://HOST:PORT` of a cluster; None takes the cluster that this process is connected to, that
            RAY_ADDRESS names or that runs on this machine, and starts Ray for this machine alone if there is none.
        gpus: how many GPUs each cell needs; 0 computes on cores.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str | None = None, *, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "scale") from None
        self._ray: Any = ray
        self._address, self._gpus = address, gpus
        self._connected = False
        self._time = WorkerTime()
        self._workers, self._counted = 0, 0.0

    def map(self, work: Callable[[Cell], Cell], cells: Sequence[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell, somewhere on the cluster.

        Raises:
            UnderfireError: what `work` raised, or the cluster cannot be reached, has no worker, or keeps losing a cell.
        """
        self._connect()
        resources = {"num_gpus": self._gpus} if self._gpus else {"num_cpus": 1}
        task = self._ray.remote(max_retries=_ATTEMPTS_AFTER_LOSS, **resources)(_compute)
        here = (__version__, str(Path.cwd()), tuple(sys.path))
        packed = pickle.dumps(work)  # a worker can unpack it only after it has the search path
        left, running = deque(cells), dict[Any, None]()
        try:
            while left or running:
                # keep two cells per worker on the way, so that no worker waits for this process
                while left and len(running) < 2 * self._count_workers():
                    running[task.remote(here, packed, left.popleft())] = None
                # collect what is done
                done, _ = self._ray.wait(list(running), timeout=1.0)
                self._time.advance(self._count_workers())
                for reference in done:
                    cell, seconds = self._result(reference)
                    del running[reference]
                    self._time.busy += seconds
                    self.idle_share = self._time.idle_share
                    yield cell
        except BaseException:
            self.close()  # which ends the workers, if this object joined the cluster
            if self._ray.is_initialized():
                for reference in running:
                    self._ray.cancel(reference)
            raise

    def close(self) -> None:
        """Leave the cluster, if this object joined it; Ray that was started for it on this machine ends."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            try:
                self._ray.init(self._address or "auto", **quiet)
            except ConnectionError:
                if self._address:
                    raise
                start = {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": _STORE}
                self._ray.init("local", **start, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UnderfireError(f"cannot reach Ray at {self._address or 'this machine'!r}: {error}") from None
        self._connected, self._time, self._counted = True, WorkerTime(), 0.0

    def _count_workers(self) -> int:
        """Return how many cells the cluster can compute at a time; asks it once a second."""
        now = time.monotonic()
        if now - self._counted >= 1:
            resources = self._ray.cluster_resources()
            self._workers = int(resources.get("GPU", 0) / self._gpus if self._gpus else resources.get("CPU", 0))
            if self._workers or not self._counted:
                self._seen = now
            elif now - self._seen > _NO_WORKERS:
                raise UnderfireError(f"the Ray cluster has no {'GPU' if self._gpus else 'core'}")
            self._counted = now
        return self._workers

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UnderfireError):
                raise error.cause from None
            raise  # its text has the worker's traceback
        except self._ray.exceptions.RayError as error:
            kept = "what is finished is kept: run again"
            first = str(error).strip().splitlines()[0]
            raise UnderfireError(
                f"a cell was lost {_ATTEMPTS_AFTER_LOSS + 1} times on the cluster ({first}; {kept})"
            ) from None


def _compute(origin: tuple[str, str, Sequence[str]], packed: bytes, cell: Cell) -> tuple[Cell, float]:
    """Compute a cell in a worker, where Ray gives torch one thread.

    Args:
        origin: the version of underfire, the current folder and the module search path of the process that asks.
        packed: what to call, pickled.
        cell: what to call it on.
    """
    version, folder, path = origin
    if version != __version__:
        raise InputError(f"a node has underfire {__version__} and this machine has {version}; install the same version")
    # find modules and relative paths where that process finds them
    sys.path.extend(entry for entry in path if entry not in sys.path)
    if Path(folder).is_dir():
        os.chdir(folder)
    return timed(pickle.loads(packed), cell)  # noqa: S301 - from the process that this worker belongs to
