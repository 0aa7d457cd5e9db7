"""Starting is quick, and loads nothing that is not needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HEAVY = {"sklearn", "plotly", "gradio", "matplotlib", "pandas", "duckdb", "pyarrow", "ray", "torchvision"}


def quickest(command: list[str], runs: int = 3) -> float:
    """The shortest of several times in seconds, on the wall or on the processor: a busy machine lengthens the first."""
    times = []
    for _ in range(runs):
        wall, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.perf_counter() - wall, os.times()
        busy = after.children_user + after.children_system - before.children_user - before.children_system
        times.append(min(wall, busy or wall))  # where the system does not count it, it is 0
    return min(times)


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after `code` ran in a new interpreter."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_bare_import_is_quick() -> None:
    assert quickest([sys.executable, "-c", "import underfire"]) < 2.5


def test_bare_import_is_light() -> None:
    assert not loaded_by("import underfire") & (HEAVY | {"torch", "numpy"})


def test_the_classifier_and_the_catalogue_stay_light() -> None:
    assert not loaded_by("import underfire as uf; uf.Classifier; list(uf.cards())") & HEAVY


def test_help_is_quick_and_does_not_load_torch() -> None:
    assert quickest([str(Path(sys.executable).parent / "underfire"), "--help"]) < 1.0
    assert not loaded_by("import underfire.cli; underfire.cli.main") & (HEAVY | {"torch"})
