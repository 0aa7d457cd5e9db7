"""Runs that end early lose nothing that was finished, and wrong folders of runs are named in one line."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.specs import Fails, spec
from underfire.audit import backends
from underfire.audit.ledger import Ledger
from underfire.cli import main

pytestmark = pytest.mark.slow  # they run the command line


def rows(run: str) -> list[dict[str, Any]]:
    """All that a run found but the time it took."""
    return Ledger(run).sql("SELECT * EXCLUDE (seconds) FROM rows ORDER BY label, eps, id")


def whole_cells(run: str) -> list[Path]:
    return sorted(Path(run, "cells").iterdir())


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_one_cell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = backends._write, []

    def until_full(place: Path, content: bytes) -> None:
        calls.append(place)
        if len(calls) > 20:
            place.write_bytes(content[:4])
            full_disk()
        write(place, content)

    command = ["audit", str(spec()), "--out", "run", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(backends, "_write", until_full)
        assert main(command) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and said[0].startswith("error: no space left to write to 'run'"), said
    kept = whole_cells("run")
    assert 0 < len(kept) <= 10 and all(not cell.name.startswith(".") for cell in kept)
    before = {cell: cell.stat().st_mtime_ns for cell in kept}
    finished = f"continuing: {Ledger('run').planned - Ledger('run').missing} of {Ledger('run').planned} cells"
    assert main(command[:-1]) == 0  # with space again it continues
    assert finished in capsys.readouterr().err
    assert {cell: cell.stat().st_mtime_ns for cell in kept} == before
    assert main(["audit", str(spec()), "--out", "other", "--quiet"]) == 0
    assert rows("run") == [{**row} for row in rows("other")]


@pytest.mark.parametrize("writer", ["underfire.figures.save", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_no_pictures(fails: Fails, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    monkeypatch.setattr(writer, full_disk)
    says = fails("attack", "fgsm", "digits:", "--model", "python:victims:right", "--n", 2, "--quiet", ends=3)
    assert "No space left on device; free some space and run the same command again" in says


def test_an_interrupted_run_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("underfire.audit.preparing.preflight", interrupted)
    assert main(["audit", str(spec()), "--out", "run"]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said == ["interrupted; run the same command again and it continues"]


def test_a_ledger_of_a_newer_version(fails: Fails) -> None:
    Path("run").mkdir()
    Path("run/ledger.json").write_text(json.dumps({"schema": 99, "underfire": "9.9", "spec": {}}))
    for arguments in (("audit", spec(), "--out", "run"), ("report", "run")):
        assert "'run' was written by underfire 9.9 (schema 99)" in fails(*arguments)


def test_a_damaged_ledger(fails: Fails) -> None:
    Path("run").mkdir()
    for content in ("", "{", "[]", '{"schema": "new"}'):
        Path("run/ledger.json").write_text(content)
        assert "'run' is damaged" in fails("report", "run")


def test_a_run_folder_that_cannot_be_made(fails: Fails) -> None:
    Path("taken").write_text("a file")
    assert "cannot write to 'taken'" in fails("audit", spec(), "--out", "taken", "--quiet")
    says = fails("attack", "fgsm", "digits:", "--model", "python:victims:right", "--out", "taken")
    assert "taken is a file" in says


def test_pictures_are_not_overwritten(fails: Fails) -> None:
    command = ["attack", "fgsm", "digits:", "--model", "python:victims:right", "--n", "1", "--out", "out", "--quiet"]
    assert main(command) == 0
    assert "exists already; pass --force" in fails(*command)
    assert main([*command, "--force"]) == 0


def test_an_option_before_the_verb_that_does_not_exist(fails: Fails) -> None:
    assert "No such option: --nothing. See: underfire --help" in fails("--nothing")


def test_a_folder_with_a_name_that_no_system_takes(fails: Fails) -> None:
    assert "code 0" in fails("audit", "--out", "a\0b", "--dry-run")


def test_a_gate_that_names_nothing(fails: Fails) -> None:
    gate = ("--out", "run", "--fail-under")
    assert "--fail-under must be NAME=VALUE" in fails("audit", spec(), *gate, "half")
    assert "did you mean 'robust_accuracy'?" in fails("audit", spec(), *gate, "robust=0.5")
    assert main(["audit", str(spec()), "--out", "run", "--quiet"]) == 0
    says = fails("report", "run", "--quiet", "--json", "--csv", "tables", "--fail-under", "robust_accuracy/pdg=0.5")
    assert "no figure 'robust_accuracy/pdg'; did you mean 'robust_accuracy'?" in says
