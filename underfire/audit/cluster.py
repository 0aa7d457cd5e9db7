"""An executor for Ray clusters: only cells are sent; workers load the model and the data, and write to the store."""

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
from underfire.audit.executors import Cell, Executor, Ready, WorkerTime, timed
from underfire.errors import InputError, MissingExtra, UnderfireError

_ATTEMPTS_AFTER_LOSS = 5
"""Number of times that a cell is computed again after the node or the worker process that computed it has died."""

_STORE = 100 * 2**20
"""The size in bytes of Ray's object store on this machine; cells are small."""

_NO_WORKERS = 60.0
"""The time in seconds after which a cluster without workers is an error."""


class RayExecutor(Executor):
    """An executor that computes cells on a Ray cluster, each on one core or on a share of a GPU.

    If a node is lost, its cells are computed again on other nodes. An `UnderfireError` of a cell ends the run at once.
    All nodes need the same versions of Python, Ray and underfire, and access to the model, the data and the store
    under the names in the spec.

    Args:
        address: `ray://HOST:PORT` of a cluster; None takes the cluster to which this process is connected, which
            RAY_ADDRESS names or which runs on this machine, and if there is none starts Ray on this machine alone.
        gpus: number of GPUs for each cell, which may be a fraction; 0 gives each cell one core.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str | None = None, *, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray[client]") from None
        self._ray: Any = ray
        self._address, self._gpus = address, gpus
        self._connected = False
        self._time = WorkerTime()
        self._workers, self._counted, self._seen = 0, 0.0, 0.0

    def map(self, work: Callable[[Cell], Cell], ready: Ready[Cell]) -> Iterator[Cell]:
        """Call `work` on every cell on the cluster.

        Raises:
            UnderfireError: `work` raised it, or the cluster cannot be reached, has no worker, or keeps losing a cell.
        """
        self._connect()
        resources = {"num_gpus": self._gpus} if self._gpus else {"num_cpus": 1}
        task = self._ray.remote(max_retries=_ATTEMPTS_AFTER_LOSS, **resources)(_compute)
        here = (__version__, str(Path.cwd()), tuple(sys.path))
        packed = pickle.dumps(work)  # a worker must set its search path before it can unpickle this
        left, running = deque(ready()), dict[Any, None]()
        try:
            while left or running:
                # submit two cells per worker, so that no worker waits for this process
                while left and len(running) < 2 * self._count_workers():
                    running[task.remote(here, packed, left.popleft())] = None
                # collect finished cells
                done, _ = self._ray.wait(list(running), timeout=1.0)
                self._time.advance(self._count_workers())
                for reference in done:
                    cell, seconds = self._result(reference)
                    del running[reference]
                    self._time.busy += seconds
                    self.idle_share = self._time.idle_share
                    yield cell
                    left.extend(ready())
        except BaseException:
            self.close()  # stops the workers, if this object connected to the cluster
            if self._ray.is_initialized():
                for reference in running:
                    self._ray.cancel(reference)
            raise

    def close(self) -> None:
        """Disconnect from the cluster, if this object connected to it; stop Ray if this object started it."""
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    def _connect(self) -> None:
        """Connect to the cluster, or start Ray on this machine, unless this process is connected already."""
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
        """Return how many cells the cluster can compute at a time; query it at most once a second."""
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
        """Return the result of a task; raise the error of the task, or UnderfireError if Ray lost it."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UnderfireError):
                raise error.cause from None
            raise  # its text has the worker's traceback
        except self._ray.exceptions.RayError as error:
            kept = "finished results are kept: run again"
            first = str(error).strip().splitlines()[0]
            raise UnderfireError(
                f"a cell was lost {_ATTEMPTS_AFTER_LOSS + 1} times on the cluster ({first}; {kept})"
            ) from None


def _compute(origin: tuple[str, str, Sequence[str]], packed: bytes, cell: Cell) -> tuple[Cell, float]:
    """Compute a cell in a worker, where Ray gives torch one thread.

    Args:
        origin: the version of underfire, the current folder and the module search path of the process that runs the
            audit.
        packed: the pickled callable.
        cell: its argument.
    """
    version, folder, path = origin
    if version != __version__:
        raise InputError(f"a node has underfire {__version__} and this machine has {version}; install the same version")
    # use the module search path and the current folder of that process
    sys.path.extend(entry for entry in path if entry not in sys.path)
    if Path(folder).is_dir():
        os.chdir(folder)
    return timed(pickle.loads(packed), cell)  # noqa: S301 - pickled by the process that runs the audit
