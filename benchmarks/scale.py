"""Measure the images per second of an audit on Ray with one worker and with two."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from benchmarks.setting import data_root
from benchmarks.timing import Row

WORKERS = (1, 2)
CELLS = 16
CELL_IMAGES = 8
STEPS = 10


def measure() -> dict[str, Any]:
    """Run an audit of ResNet-20 under PGD with each number of workers."""
    found: dict[str, Any] = {str(workers): _run(workers) for workers in WORKERS}
    return {**found, "load": os.getloadavg()[2], "cores": os.cpu_count()}


def _run(workers: int) -> dict[str, float]:
    """Return the images per second after every worker has loaded the model, and the idle share of the whole run."""
    import ray

    from underfire.audit.cluster import RayExecutor
    from underfire.audit.run import Event, run
    from underfire.audit.spec import parse_spec

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    weights = data_root() / "weights" / "resnet20_cifar10.safetensors"
    spec = parse_spec(
        {
            "model": f"{weights}?arch=resnet20_cifar10",
            "data": {"uri": f"parquet:{data_root() / 'cifar10-test.parquet'}", "n": CELLS * CELL_IMAGES},
            "attacks": [{"name": "pgd", "eps": 8 / 255, "steps": STEPS, "keep": "last"}],
            "masking": False,
            "shard_size": CELL_IMAGES,
            "batch_size": CELL_IMAGES,
        }
    )
    crafted: list[tuple[float, int]] = []

    def tell(event: Event) -> None:
        if event.what.startswith("pgd"):
            crafted.append((time.perf_counter(), event.done))

    ray.init(
        "local",
        num_cpus=workers,
        _node_ip_address="127.0.0.1",
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        with tempfile.TemporaryDirectory() as folder, RayExecutor() as executor:
            run(spec, folder, executor=executor, progress=tell)
            idle_share = executor.idle_share
    finally:
        ray.shutdown()
    (start, before), (end, after) = crafted[workers], crafted[-workers]
    return {"images_per_second": (after - before) / (end - start), "idle_share": idle_share or 0.0}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the images per second and worker, and the efficiency of two workers."""
    what = f"audit on Ray, PGD-{STEPS}, ResNet-20, {CELLS * CELL_IMAGES} images"
    note = f"; load of the machine {found['load']:.0f} on {found['cores']} cores" if found["load"] > 3 else ""
    speed = {workers: found[str(workers)]["images_per_second"] for workers in WORKERS}
    table = [
        (
            f"{what}, {workers} worker{'s' if workers > 1 else ''}: images/s per worker",
            f"{speed[workers] / workers:.2f}; idle {found[str(workers)]['idle_share']:.0%}{note}",
            "for comparison",
        )
        for workers in WORKERS
    ]
    efficiency = speed[2] / speed[1] / 2
    return [*table, (f"{what}: efficiency of 2 workers", f"{efficiency:.2f}{note}", "≥ 0.9 on 2 free cores")]
