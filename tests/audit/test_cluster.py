"""Ray: two nodes give the numbers of one process, and a node that is lost costs the cells it was computing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from underfire.audit.cluster import RayExecutor
from underfire.audit.run import Event, run
from underfire.audit.spec import AuditSpec
from underfire.errors import MissingExtra, ModelError, UnderfireError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[client]'")
from cluster_work import Trace  # noqa: E402 - it needs Ray

pytestmark = pytest.mark.slow

Small = Callable[..., AuditSpec]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False, "node_ip_address": "127.0.0.1"}


def once(cells: list[str]) -> Callable[[], list[str]]:
    """All cells at the first call, and none later."""
    calls = iter([cells])
    return lambda: next(calls, [])


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


def test_the_numbers_are_those_of_one_process(cluster: Any, small: Small, tmp_path: Path) -> None:
    padded = {"defenses": [{"name": "resize_and_pad", "keep_size": True}, {"name": "bit_depth", "bits": 2}]}
    narrow = "python:audit_networks:narrow"
    spec = small(shard_size=20, sources=["python:audit_networks:linear", narrow], victims=[narrow, padded])
    events: list[Event] = []
    with RayExecutor() as executor:
        there = run(spec, tmp_path / "there", executor=executor, progress=events.append)
        assert executor.idle_share is not None
        assert 0 <= executor.idle_share < 1
    assert not ray.is_initialized()
    alone: list[Event] = []
    here = run(spec, tmp_path / "here", progress=alone.append)
    for table in ("clean", "rows", "maps", "answers", "sample", "transfer"):
        query = f"SELECT * {'EXCLUDE seconds' if table == 'rows' else ''} FROM {table} ORDER BY ALL"
        assert repr(there.sql(query)) == repr(here.sql(query))  # NaN is NaN, as text
        assert len(there.table(table)) > 0
    assert events[-1].cells == events[-1].of_cells == alone[-1].of_cells  # without crafts that nothing reads
    assert {cell["key"] for cell in there.cells} == {cell["key"] for cell in here.cells}
    assert events[-1].done == events[-1].total


def test_a_lost_node_costs_its_cells_in_flight(cluster: Any, tmp_path: Path) -> None:
    trace, cells = Trace(tmp_path), [f"c{i}" for i in range(16)]
    finished: list[str] = []
    at_the_loss: Counter[str] = Counter()
    with RayExecutor() as executor:
        for cell in executor.map(trace, once(cells)):
            finished.append(cell)
            if not at_the_loss and trace.count("done", cluster.second.node_id):
                cluster.remove_node(cluster.second, allow_graceful=False)
                at_the_loss = Counter(finished)
    assert 1 <= len(at_the_loss) < len(cells)
    assert sorted(finished) == sorted(cells)
    assert set(trace.count("done")) == set(cells)
    begun = trace.count("begun")
    assert all(begun[cell] == 1 for cell in at_the_loss)
    assert sum(begun.values()) <= len(cells) + 2


def test_a_wrong_cell_ends_the_run_and_a_deadly_one_is_given_up(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underfire.audit.cluster._ATTEMPTS_AFTER_LOSS", 1)
    trace = Trace(tmp_path)
    try:
        ray.init(log_to_driver=False)  # so that an error does not end the workers, which take long to start
        with RayExecutor() as executor, pytest.raises(ModelError, match="the weights are wrong"):
            list(executor.map(trace, once(["wrong", *(f"c{i}" for i in range(40))])))
        assert sum(trace.count("begun").values()) < 10
        with RayExecutor() as executor, pytest.raises(UnderfireError, match="lost 2 times"):
            list(executor.map(trace, once(["deadly"])))
        assert ray.is_initialized()  # a connection that was there before stays
    finally:
        ray.shutdown()
    assert trace.count("begun")["deadly"] == 2


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"ray\[client\]"):
        RayExecutor()


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UnderfireError, match="cannot reach Ray at 'ray://nowhere:1'"):
        list(RayExecutor("ray://nowhere:1").map(str, once(["c1"])))
