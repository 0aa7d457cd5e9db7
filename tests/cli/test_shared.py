"""Files appear together or not at all; errors fit one line; JSON is strict."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from underfire.cli.progress import progress
from underfire.cli.shared import ERR, OUT, atomic_write_all, device, one_line, to_json
from underfire.errors import InputError
from underfire.records import Interval


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_files_move_together(tmp_path: Path) -> None:
    with atomic_write_all(tmp_path / "a" / "b", ["one", "two"]) as staging:
        (staging / "one").write_text("1")
        (staging / "two").write_text("2")
        assert not (tmp_path / "a").exists()
    assert contents(tmp_path) == {"a", "a/b", "a/b/one", "a/b/two"}


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wrong"), atomic_write_all(tmp_path / "a", ["one"]) as staging:
        (staging / "one").write_text("1")
        raise InputError("wrong")
    assert contents(tmp_path) == set()


def test_existing_files_are_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    with pytest.raises(InputError, match=r"one exists already; pass --force"), atomic_write_all(tmp_path, ["one"]):
        raise AssertionError("must not be reached")
    with atomic_write_all(tmp_path, ["one"], force=True) as staging:
        (staging / "one").write_text("new")
    assert (tmp_path / "one").read_text() == "new"
    with pytest.raises(InputError, match="is a file"), atomic_write_all(tmp_path / "one", ["x"]):
        raise AssertionError("must not be reached")


def test_an_error_is_one_line() -> None:
    assert one_line(InputError("a\n  b")) == "a b"
    full = one_line(OSError(errno.ENOSPC, "No space left on device", "x/y"))
    assert full == "No space left on device: x/y; free some space and run the same command again"
    assert one_line(OSError("odd")) == "odd"


def test_colons_of_a_name_make_no_pictures() -> None:
    for console in (OUT, ERR):
        with console.capture() as shown:
            console.print("digits:train: none")
        assert shown.get() == "digits:train: none\n"


def test_json_is_strict() -> None:
    value = {"nan": float("nan"), "tensor": torch.tensor([1.0, float("inf")]), "interval": Interval(0.5, 0.25, 0.75, 4)}
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    assert json.loads(to_json(value)) == {"nan": None, "tensor": [1.0, None], "interval": interval}


def test_an_absent_device_is_named() -> None:
    assert device("cpu") == "cpu"
    for name in ("cuda:99", "abacus", "meta", "hpu", "", "mps"):
        with pytest.raises(InputError, match=f"'{name}' .*: cpu"):
            device(name)


def test_the_bar_shows_rate_and_end_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 4, unit="things") as show:
        show(2)
        show(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "4/4 things" in shown.err and "things/s" in shown.err
    with progress("work", 4, unit="things", quiet=True) as show:
        show(4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("done", "total", "says"), [(1000, 1000, "1000/1000"), (1234567, 2e6, "1234567/2000000")])
def test_the_bar_shows_large_numbers_in_full(
    capsys: pytest.CaptureFixture[str], done: float, total: float, says: str
) -> None:
    with progress("looking at", total, unit="images") as show:
        show(done)
    shown = capsys.readouterr().err
    assert f"{says} images" in shown and "e+" not in shown
    assert len(shown.strip().splitlines()) == 1  # the bar gives way, not the rate


def test_the_bar_shows_parts_of_a_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train", 3, unit="passes") as show:
        show(1 / 3)
    assert "0.333/3 passes" in capsys.readouterr().err


def test_without_a_terminal_a_line_is_printed_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("underfire.cli.progress.EVERY", 0.02)
    with progress("work", 4, unit="things") as show:
        show(1)
        time.sleep(0.2)
        show(3, "more work")
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("work: 1/4 things") and any(line.startswith("more work: 3/4 things,") for line in lines)
    with progress("work", 4, unit="things", quiet=True) as show:
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_shell_completes_verbs_and_options() -> None:
    def completed(words: str) -> list[str]:
        environment = {**os.environ, "_UNDERFIRE_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(len(words.split()) - 1)
        code = "from underfire.cli import main; raise SystemExit(main())"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        return done.stdout.split()

    assert completed("underfire au") == ["audit"]
    assert "--dry-run" in completed("underfire audit --dr")
