"""Starting loads nothing that is not needed; how long it takes is measured in `benchmarks/startup.py`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"sklearn", "plotly", "gradio", "matplotlib", "pandas", "duckdb", "pyarrow", "ray", "torchvision"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after `code` ran in a new interpreter."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_bare_import_is_light() -> None:
    assert not loaded_by("import underfire") & (HEAVY | {"torch", "numpy"})


@pytest.mark.slow
def test_the_classifier_and_the_catalogue_stay_light() -> None:
    assert not loaded_by("import underfire as uf; uf.Classifier; list(uf.cards())") & HEAVY


def test_the_command_line_does_not_load_torch() -> None:
    assert not loaded_by("import underfire.cli; underfire.cli.main") & (HEAVY | {"torch"})
