"""The store: whole cells or nothing, in a folder and in an object store."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from underfire.audit import backends
from underfire.audit.store import Store, translate_os_errors
from underfire.errors import DiskFull, InputError, LedgerError

CELL = {"rows.parquet": b"rows" * 1000, "empty.parquet": b""}


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of either kind."""
    if request.param == "folder":
        yield Store(tmp_path / "run")
        return
    url = f"memory://{uuid.uuid4().hex}/run"
    yield Store(url)
    fsspec.filesystem("memory").rm(url, recursive=True) if fsspec.filesystem("memory").exists(url) else None


def _files(store: Store) -> list[str]:
    return sorted(store._files.find(store._root))


def _spoil(store: Store, key: str, name: str, content: bytes) -> None:
    (place,) = [place for place in _files(store) if f"/{key}/" in place and place.endswith(f"/{name}")]
    store._files.pipe_file(place, content)


def test_a_cell_comes_back_as_it_was_put(store: Store) -> None:
    assert store.keys() == set()
    assert store.get("a1", "rows.parquet") is None
    store.put("a1", CELL)
    store.put("b2", {"maps.parquet": b"maps"})
    assert store.keys() == {"a1", "b2"}
    assert {name: store.get("a1", name) for name in CELL} == CELL
    assert store.get("a1", "maps.parquet") is None
    assert store.read(["a1", "b2", "c3"], "maps.parquet") == {"b2": b"maps"}
    assert store.size("a1") == 4000
    assert store.size("c3") == 0
    there = pickle.loads(pickle.dumps(store))
    assert there.get("a1", "rows.parquet") == CELL["rows.parquet"]


def test_a_deleted_cell_leaves_nothing_and_can_be_put_again(store: Store) -> None:
    store.put("a1", CELL)
    store.put("b2", CELL)
    others = [place for place in _files(store) if "/b2/" in place]
    store.delete("a1")
    store.delete("c3")
    assert store.keys() == {"b2"}
    assert _files(store) == others
    store.put("a1", {"new": b"1"})
    assert store.get("a1", "new") == b"1"
    assert store.get("a1", "rows.parquet") is None


def test_a_head_is_replaced_as_a_whole(store: Store) -> None:
    assert store.get_head("ledger.json") is None
    for content in (b"first", b"second"):
        store.put_head("ledger.json", content)
        assert store.get_head("ledger.json") == content
    assert store.keys() == set()
    assert [place.rsplit("/", 1)[-1] for place in _files(store)] == ["ledger.json"]


@pytest.mark.parametrize("survives", [0, 1, 2])
def test_a_put_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, survives: int) -> None:
    store.put_head("ledger.json", b"{}")
    left = [survives]

    def full(*_: Any, **__: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*_, **__)

    where, name = (backends, "_write") if store._local else (type(store._files), "pipe_file")
    original = getattr(where, name)
    monkeypatch.setattr(where, name, full)
    with pytest.raises(DiskFull, match="no space left"):
        store.put("a1", CELL)
    monkeypatch.undo()
    assert store.keys() == set()
    assert [place.rsplit("/", 1)[-1] for place in _files(store)] == ["ledger.json"]


def test_files_without_a_manifest_are_no_cell(store: Store) -> None:
    place = f"{store._root}/cells/a1"
    store.put("b2", CELL)
    store._files.makedirs(place, exist_ok=True)
    store._files.pipe_file(f"{place}/rows.parquet", b"half a copy")
    assert store.keys() == {"b2"}
    assert store.get("a1", "rows.parquet") is None
    store.put("a1", CELL)
    assert store.get("a1", "rows.parquet") == CELL["rows.parquet"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"files": {}}', b'{"part": "", "files": 1}'])
def test_a_damaged_manifest_is_named(store: Store, content: bytes) -> None:
    store.put("a1", CELL)
    _spoil(store, "a1", "manifest.json", content)
    with pytest.raises(LedgerError, match="cells/a1/manifest.json is damaged"):
        store.get("a1", "rows.parquet")
    store.delete("a1")
    assert store.keys() == set()


def test_a_changed_or_lost_file_is_named(store: Store) -> None:
    store.put("a1", CELL)
    _spoil(store, "a1", "rows.parquet", b"rows" * 999 + b"cows")
    with pytest.raises(LedgerError, match="cells/a1/rows.parquet is damaged"):
        store.get("a1", "rows.parquet")
    (place,) = [place for place in _files(store) if place.endswith("/rows.parquet")]
    store._files.rm_file(place)
    with pytest.raises(LedgerError, match="cells/a1/rows.parquet is damaged"):
        store.read(["a1"], "rows.parquet")
    assert store.get("a1", "empty.parquet") == b""


def _writer(url: str, number: int, rounds: int) -> None:
    store = Store(url)
    for i in range(rounds):
        store.put(f"k{i}", {"who": str(number).encode(), "also": str(number).encode() * 10_000})


def _whole(store: Store, rounds: int) -> None:
    assert store.keys() == {f"k{i}" for i in range(rounds)}
    for i in range(rounds):
        who, also = store.get(f"k{i}", "who"), store.get(f"k{i}", "also")
        assert who is not None
        assert also == who * 10_000


@pytest.mark.slow
def test_processes_that_write_the_same_keys_leave_whole_cells(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    writers = [context.Process(target=_writer, args=(str(tmp_path), number, 20)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    _whole(Store(tmp_path), 20)
    assert not list(tmp_path.rglob(".part-*"))


def test_a_second_writer_of_a_key_leaves_a_whole_cell(store: Store) -> None:
    _writer(store.url, 1, 2)
    _writer(store.url, 2, 2)
    _whole(store, 2)


def test_a_text_without_a_scheme_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run:1", "data:x", "a::b", "run[1]*"):
        store = Store(name)
        store.put("a1", CELL)
        assert (tmp_path / name / "cells" / "a1" / "rows.parquet").read_bytes() == CELL["rows.parquet"]
        assert store.keys() == {"a1"}
        assert store.get("a1", "rows.parquet") == CELL["rows.parquet"]
        store.delete("a1")
        assert store.keys() == set()
    monkeypatch.chdir("/")
    assert store.url == (tmp_path / "run[1]*").as_posix()  # also after the folder was changed
    by_url = Store((tmp_path / "there").as_uri())
    by_url.put("a1", CELL)
    assert (tmp_path / "there" / "cells" / "a1" / "manifest.json").exists()


def test_leftovers_are_removed_when_they_are_old(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("a1", CELL)
    old, new = tmp_path / "cells" / ".part-old", tmp_path / "cells" / ".part-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "manifest.json").write_bytes(b"{}")
    os.utime(old, (time.time() - 7200,) * 2)
    assert store.keys() == {"a1"}
    store.clean_up()
    assert not old.exists()
    assert new.exists()
    Store("memory://nothing/here").clean_up()


def test_what_cannot_be_opened_read_or_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open 'nosuch://bucket/run'"):
        Store("nosuch://bucket/run")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LedgerError, match="cannot write to .*file/run"):
        Store(tmp_path / "file" / "run").put("a1", CELL)
    with pytest.raises(LedgerError, match="cannot write to .*file/run"):
        Store(tmp_path / "file" / "run").put_head("ledger.json", b"")
    assert Store(tmp_path / "file" / "run").get_head("ledger.json") is None
    with pytest.raises(DiskFull, match="no space left .*'there'"), translate_os_errors("there"):
        raise OSError(errno.ENOSPC, "full")


def test_errors_of_a_client_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://bucket/run")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(store._files), "pipe_file", refuse)
    with pytest.raises(LedgerError, match="RuntimeError: no credentials"):
        store.put_head("ledger.json", b"")
    monkeypatch.setattr(type(store._files), "cat_file", refuse)
    with pytest.raises(LedgerError, match="cannot read .*: no credentials"):
        store.get("a1", "rows.parquet")


def test_a_cell_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is flushed before the rename that shows it, and the folder after that."""
    order: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: order.append(str(Path(f"/proc/self/fd/{file}").readlink())) or fsync(file)
    )
    monkeypatch.setattr(Path, "rename", lambda self, to: order.append(f"rename {to}") or rename(self, to))
    monkeypatch.setattr(Path, "replace", lambda self, to: order.append(f"rename {to}") or replace(self, to))
    store = Store(tmp_path)
    store.put("a1", CELL)
    *files, part, renamed, parent = order
    assert sorted(Path(file).name for file in files) == sorted([*CELL, "manifest.json"])
    assert Path(part) == Path(files[0]).parent
    assert (renamed, parent) == (f"rename {tmp_path}/cells/a1", f"{tmp_path}/cells")
    order.clear()
    store.put_head("ledger.json", b"{}")
    assert [Path(order[0]).name[:6], *order[1:]] == [".part-", f"rename {tmp_path}/ledger.json", str(tmp_path)]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a b"])
def test_a_key_is_one_plain_name(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="file name"):
        store.put(name, CELL)
    with pytest.raises(InputError, match="file name"):
        store.put("a1", {name: b""})
    assert store.keys() == set()


_WITHOUT_POSIX = """
import os, sys

for name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[name] = None
if hasattr(os, "sched_getaffinity"):
    del os.sched_getaffinity
import underfire.audit.run, underfire.cli.runs, underfire.report
from underfire.audit.store import Store

Store(sys.argv[1]).put("a1", {"rows.parquet": b"rows"})
print(Store(sys.argv[1]).keys())
"""


@pytest.mark.slow
def test_nothing_needs_modules_that_windows_lacks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_POSIX, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "{'a1'}\n", done.stderr
