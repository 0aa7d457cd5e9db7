"""Models of the user on the command line: stdout is for results, an error is one line, `--debug` adds the traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from underfire.cli import main

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

CODE = """
import os
import sys
import torch

class Loud(torch.nn.Module):
    def __init__(self, end=False):
        super().__init__()
        self.head, self.end = torch.nn.Linear(3, 2), end
    def forward(self, x):
        print("printed by forward")
        if self.end:
            sys.exit(0)
        return self.head(x.mean((2, 3)))

def build(fail=False, shell=False):
    print("printed by build")
    if shell:
        os.system("echo printed by a program")
    if fail:
        raise ValueError("no weights")
    return Loud()
"""


@pytest.fixture(autouse=True)
def _photo() -> None:
    Path("loud_of_a_test.py").write_text(CODE)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    sys.modules.pop("loud_of_a_test", None)


ATTACK = ("attack", "fgsm", "photo.png", "--model")


def test_json_is_pure(parsed: Callable[..., Any]) -> None:
    assert parsed(*ATTACK, "python:loud_of_a_test:build")


def test_json_is_pure_of_what_programs_print(tmp_path: Path) -> None:
    # A process of its own (some seconds): programs write to its stdout, past sys.stdout.
    run = "import sys; from underfire.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, *ATTACK, "python:loud_of_a_test:build?shell=true", "--json"]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=True)
    assert json.loads(done.stdout) and "printed by a program" in done.stderr and "printed by forward" in done.stderr


@pytest.mark.parametrize("where", ["before", "after", None])
def test_debug_adds_the_traceback(where: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    verb = [*ATTACK, "python:loud_of_a_test:build?fail=true", "--quiet"]
    before, after = (["--debug"] if where == place else [] for place in ("before", "after"))
    assert main([*before, *verb, *after]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "ValueError: no weights" in lines[-1]
    assert (len(lines) == 2) == (where is None)  # what build prints, and the error
    assert any("Traceback" in line for line in lines) == (where is not None)


def test_a_model_that_ends_the_program_does_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ATTACK, "python:loud_of_a_test:Loud?end=true", "--quiet"]) == 2
    assert "sys.exit" in capsys.readouterr().err
