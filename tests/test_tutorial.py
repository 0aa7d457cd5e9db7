"""The tutorial can be followed: its files train a model, its commands are understood, and its notebook runs."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from underfire.audit.spec import load_spec
from underfire.cli.app import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = [shlex.split(line[2:]) for line in PAGE.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files of the tutorial, and what the second of them writes after a shorter training."""
    place = tmp_path_factory.mktemp("tutorial")
    for file in (ROOT / "examples" / "tutorial").glob("*.py"):
        (place / file.name).write_text(file.read_text().replace("EPOCHS = 6", "EPOCHS = 1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place)
        runpy.run_path("prepare.py")
    sys.modules.pop("my_model", None)
    return place


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    # the attack on one image, the audit, the plan of the audit, the template: as on the page, but small
    attack, audit, init, dry_run, again = [command[1:] for command in COMMANDS if command[0] == "underfire"]
    assert main([*attack, "--steps", "2", "--quiet"]) == 0
    small = [word.replace("60", "4") for word in audit]
    assert main([*small, "--attack", "fgsm", "--interpreter", "grad_cam", "--workers", "0", "--quiet"]) in (0, 3)
    assert (folder / "runs" / "first" / "report.html").exists()
    assert main(init) == 0
    assert dry_run[:2] == again[:2] == ["audit", init[1]]
    # the keys of step 6 are those of the template
    changed = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
    template = (folder / "audit.yaml").read_text()
    (folder / "audit.yaml").write_text(changed + template[template.index("attacks:") :])
    spec = load_spec(folder / "audit.yaml")
    assert (spec.data.n, len(spec.model.labels or ()), spec.model.uri) == (60, 10, audit[2])
    sys.modules.pop("my_model", None)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    names: dict[str, Any] = {"__name__": "tutorial"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tutorial.ipynb", "exec"), names)
    assert (tmp_path / "report.html").exists()
    said = dict(line.split(":") for line in capsys.readouterr().out.splitlines() if line.startswith("right under"))
    assert int(said["right under attack"].split()[0]) < 8
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
