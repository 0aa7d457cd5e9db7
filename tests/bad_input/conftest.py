"""An empty folder for each test, and a command that must fail with one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.specs import Fails
from underfire.cli import main

VICTIMS = Path(__file__).parents[1] / "cli"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test runs in an empty folder, with the victims on the path."""
    monkeypatch.syspath_prepend(VICTIMS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("victims", None)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the command line with these arguments; it must end with `ends` and one line of error, which is given back."""

    def run(*arguments: object, ends: int = 2) -> str:
        before = set(Path().rglob("*"))
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert (code, shown.out) == (ends, ""), shown
        lines = shown.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
        assert set(Path().rglob("*")) == before, "something was written"
        return lines[0]

    return run
