"""Ray: two nodes give the numbers of one process, and a node that is lost costs the cells it was computing."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from underfire.audit.cluster import RayExecutor
from underfire.audit.run import Event, run
from underfire.audit.spec import AuditSpec
from underfire.errors import MissingExtra, ModelError, UnderfireError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'underfire[scale]'")
pytestmark = pytest.mark.slow

Small = Callable[..., AuditSpec]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "node_ip_address": "127.0.0.1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two node processes on the loopback interface; RAY_ADDRESS leads to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other programs' memory is no reason to end a worker
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)  # loopback only
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args=NODE)
        nodes.second = nodes.add_node(**NODE)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


class Step:
    """Work that leaves a file when it begins a cell and another when it ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, cell: str) -> str:
        node = ray.get_runtime_context().get_node_id()
        place = self.folder / f"{cell}.{node}.{time.monotonic_ns()}"
        place.with_suffix(".begun").touch()
        if cell == "wrong":
            raise ModelError("the weights are wrong")
        if cell == "ends-the-process":
            os._exit(1)
        time.sleep(0.3)
        place.with_suffix(".done").touch()
        return cell


def _count(folder: Path, kind: str, node: str = "*") -> Counter[str]:
    return Counter(place.name.split(".")[0] for place in folder.glob(f"*.{node}.{kind}"))


def test_the_numbers_are_those_of_one_process(cluster: Any, small: Small, tmp_path: Path) -> None:
    spec = small(shard_size=20)
    events: list[Event] = []
    with RayExecutor() as executor:
        there = run(spec, tmp_path / "there", executor=executor, progress=events.append)
        assert executor.idle_share is not None
        assert 0 <= executor.idle_share < 1
    assert not ray.is_initialized()
    here = run(spec, tmp_path / "here")
    for table in ("clean", "rows", "maps"):
        query = f"SELECT * {'EXCLUDE seconds' if table == 'rows' else ''} FROM {table} ORDER BY ALL"
        assert there.sql(query) == here.sql(query)
        assert len(there.table(table)) > 0
    assert events[-1].cells == events[-1].of_cells == len(there.cells)
    assert events[-1].done == events[-1].total


def test_an_error_of_a_cell_ends_the_run_with_its_message(cluster: Any, tmp_path: Path) -> None:
    with RayExecutor() as executor, pytest.raises(ModelError, match="the weights are wrong"):
        list(executor.map(Step(tmp_path), ["wrong", *(f"c{i}" for i in range(40))]))
    assert len(_count(tmp_path, "begun")) < 20
    assert not ray.is_initialized()  # nothing goes on


def test_a_lost_node_costs_its_cells_in_flight(cluster: Any, tmp_path: Path) -> None:
    cells = [f"c{i}" for i in range(16)]
    victim = cluster.second.node_id
    with RayExecutor() as executor:
        finished = []
        for cell in executor.map(Step(tmp_path), cells):
            finished.append(cell)
            if victim and _count(tmp_path, "done", f"{victim}*"):
                kept = _count(tmp_path, "done")
                cluster.remove_node(cluster.second, allow_graceful=False)
                victim = None
    assert victim is None
    assert sorted(finished) == sorted(cells)
    begun, done = _count(tmp_path, "begun"), _count(tmp_path, "done")
    assert set(done) == set(cells)
    assert all(begun[cell] == 1 for cell in kept if cell in finished[: len(kept) - 2])
    assert len(cells) <= begun.total() <= len(cells) + 2


def test_a_cell_that_kills_every_worker_is_given_up(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underfire.audit.cluster._ATTEMPTS_AFTER_LOSS", 1)
    with RayExecutor() as executor, pytest.raises(UnderfireError, match="lost 2 times"):
        list(executor.map(Step(tmp_path), ["ends-the-process"]))
    assert _count(tmp_path, "begun") == {"ends-the-process": 2}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtra, match="underfire\\[scale\\]"):
        RayExecutor()


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnderfireError, match="cannot reach Ray at 'ray://127.0.0.1:1'"):
        list(RayExecutor("ray://127.0.0.1:1").map(str, [1]))
