"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from underfire.errors import DiskFull, InputError
from underfire.files import atomic_write, is_full


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "a.txt"
    with atomic_write(place) as part:
        part.write_text("new")
        assert not place.exists()
    assert place.read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(place) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write '.*file/a.txt'"),
        atomic_write(tmp_path / "file" / "a.txt") as part,
    ):
        part.write_text("never")
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path) as part:
        part.write_text("a folder is there")


def test_a_full_disk_is_no_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=r"no space left .*a.txt") as full, atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert is_full(full.value) and not is_full(OSError(errno.EACCES, "Permission denied"))
