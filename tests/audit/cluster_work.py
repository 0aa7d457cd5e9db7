"""Work for a Ray cluster that leaves a trace; its own module, because workers load it without torch."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import ray

from underfire.errors import ModelError


class Trace:
    """Leaves a file when it begins a cell and another when it ends it, with the node in the name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, cell: str) -> str:
        place = f"{cell}.{ray.get_runtime_context().get_node_id()}.{time.time_ns()}"
        (self.folder / f"{place}.begun").touch()
        if cell == "wrong":
            raise ModelError("the weights are wrong")
        if cell == "deadly":
            os._exit(1)
        time.sleep(0.2)
        (self.folder / f"{place}.done").touch()
        return cell

    def count(self, kind: str, node: str = "*") -> Counter[str]:
        """How often each cell was begun or done."""
        return Counter(place.name.split(".")[0] for place in self.folder.glob(f"*.{node}.*.{kind}"))
