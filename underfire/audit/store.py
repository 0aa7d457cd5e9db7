"""The store: the results of cells, written atomically to a local folder or an object store.

    ROOT/NAME                      heads, such as `ledger.json`, each replaced as a whole
    ROOT/cells/KEY/manifest.json   the files of a cell: the folder of each, its size and its SHA-256
    ROOT/cells/KEY/[PART/]FILE     the files themselves

A cell exists if and only if its manifest exists, and the manifest appears last: a local folder is filled under a
temporary name and then renamed; in an object store, the manifest is written after the files. No lock is needed: two
writers of the same key write the same content, and the store ends up with the complete result of one of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from underfire.errors import InputError, LedgerError, UnderfireError

_MANIFEST = "manifest.json"
_STAGING = ".part-"
_ABANDONED = 3600.0
"""The age in seconds from which on a staging folder is taken for the remains of a killed process."""


class Store:
    """Store the files of cells, and a few files beside the cells, called heads.

    A store can be pickled; a relative path is resolved when the store is created.

    Args:
        url: a local folder, or a URL that fsspec knows, such as `s3://bucket/run` or `memory://run`. A text without
            `://` is a path, even if it contains a colon.

    Raises:
        LedgerError: fsspec does not know the protocol, or lacks a package for it.
    """

    def __init__(self, url: str | Path) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.url = self._name = str(url)  # messages name the store as the caller did
        if "://" not in self.url:
            self._files: Any = LocalFileSystem()
            self._root = Path(self.url).absolute().as_posix()
            self.url = self._root
        else:
            try:
                self._files, root = url_to_fs(self.url)
            except (ValueError, ImportError) as error:
                raise LedgerError(f"cannot open {self.url!r}: {error}") from None
            self._root = root.rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write the files of a cell; if the store already has a cell of this key, one of the two is kept.

        Raises:
            LedgerError: the disk is full, or the store cannot be written; no part of the cell is visible then.
        """
        part = uuid.uuid4().hex[:12]
        with self._translated():
            if self._local:
                self._put_folder(self._cell(key), part, files)
            else:
                self._put_objects(self._cell(key), part, files)

    def get(self, key: str, name: str) -> bytes | None:
        """Return one file of a cell; None if the cell or the file does not exist.

        Raises:
            LedgerError: the cell is damaged: its manifest is not valid, or the file is missing or has been changed.
        """
        return self.read([key], name).get(key)

    def read(self, keys: Iterable[str], name: str) -> dict[str, bytes]:
        """Return the file `name` of every cell that has one, by key; an object store is read in parallel.

        Raises:
            LedgerError: a cell is damaged, as in `get`.
        """
        known = list(keys)
        manifests = self._fetch(f"{self._cell(key)}/{_MANIFEST}" for key in known)
        entries = {}
        for key, content in zip(known, manifests, strict=True):
            if content is not None:
                part, files = self._parse(key, content)
                if name in files:
                    entries[key] = (f"{self._cell(key)}/{part}{name}", files[name])
        found = self._fetch(place for place, _ in entries.values())
        result = {}
        for (key, (_, checksum)), content in zip(entries.items(), found, strict=True):
            if content is None or hashlib.sha256(content).hexdigest() != checksum["sha256"]:
                raise self._damaged(key, name)
            result[key] = content
        return result

    def keys(self) -> set[str]:
        """Return the keys of all cells.

        Raises:
            LedgerError: the store cannot be read.
        """
        with self._translated("read"):
            self._files.invalidate_cache()
            places = [place.split("/") for place in self._files.find(f"{self._root}/cells")]
        depth = self._root.count("/") + 4
        return {
            place[-2]
            for place in places
            if place[-1] == _MANIFEST and len(place) == depth and not place[-2].startswith(_STAGING)
        }

    def size(self, key: str) -> int:
        """Return the size of a cell's files in bytes, as its manifest states it; 0 if the cell does not exist.

        Raises:
            LedgerError: the manifest is damaged.
        """
        (content,) = self._fetch([f"{self._cell(key)}/{_MANIFEST}"])
        return 0 if content is None else sum(entry["size"] for entry in self._parse(key, content)[1].values())

    def delete(self, key: str) -> None:
        """Delete a cell if it exists; a reader sees the whole cell or none of it.

        Raises:
            LedgerError: the store cannot be written.
        """
        place = self._cell(key)
        with self._translated():
            if self._local:
                aside = Path(place).with_name(f"{_STAGING}{uuid.uuid4().hex[:12]}")
                with suppress(FileNotFoundError):
                    Path(place).rename(aside)
                    shutil.rmtree(aside, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    self._files.rm_file(f"{place}/{_MANIFEST}")
                with suppress(FileNotFoundError):
                    self._files.rm(place, recursive=True)

    def put_head(self, name: str, content: bytes) -> None:
        """Write or replace a file beside the cells; a reader sees the whole old content or the whole new content.

        Raises:
            LedgerError: the disk is full, or the store cannot be written.
        """
        place = f"{self._root}/{_simple(name)}"
        with self._translated():
            if not self._local:
                self._files.pipe_file(place, content)
                return
            Path(self._root).mkdir(parents=True, exist_ok=True)
            part = Path(self._root, f"{_STAGING}{uuid.uuid4().hex[:12]}")
            try:
                _write(part, content)
                part.replace(place)
            finally:
                part.unlink(missing_ok=True)

    def get_head(self, name: str) -> bytes | None:
        """Return the content of a file beside the cells, or None if it does not exist.

        Raises:
            LedgerError: the store cannot be read.
        """
        return self._fetch([f"{self._root}/{_simple(name)}"])[0]

    def clean_up(self) -> None:
        """Delete what killed processes left in a local folder, if it is more than an hour old."""
        for folder in (Path(self._root), Path(self._root, "cells")) if self._local else ():
            for leftover in folder.glob(f"{_STAGING}*"):
                with suppress(OSError):
                    if time.time() - leftover.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _cell(self, key: str) -> str:
        return f"{self._root}/cells/{_simple(key)}"

    def _put_folder(self, place: str, part: str, files: Mapping[str, bytes]) -> None:
        """Write a cell to a local folder: fill a staging folder, and rename it."""
        target = Path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(_STAGING + part)
        try:
            staging.mkdir()
            for name, content in files.items():
                _write(staging / _simple(name), content)
            _write(staging / _MANIFEST, _manifest(files, ""))
            if target.is_dir() and not (target / _MANIFEST).exists():  # incomplete, for example a copy made by hand
                self.delete(target.name)
            try:
                staging.rename(target)
            except OSError:
                if not (target / _MANIFEST).exists():  # if it exists, another process wrote the cell first
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _put_objects(self, place: str, part: str, files: Mapping[str, bytes]) -> None:
        """Write a cell to an object store: the files first, then the manifest, which makes them visible."""
        try:
            self._files.pipe({f"{place}/{part}/{_simple(name)}": content for name, content in files.items()})
            self._files.pipe_file(f"{place}/{_MANIFEST}", _manifest(files, f"{part}/"))
        except BaseException:
            with suppress(Exception):
                self._files.rm(f"{place}/{part}", recursive=True)
            raise

    def _fetch(self, places: Iterable[str]) -> list[bytes | None]:
        """Return the content of the file at every place, or None where there is no file."""
        wanted = list(places)
        with self._translated("read"):
            found = self._files.cat_ranges(wanted, None, None, on_error="return") if wanted else []
            for content in found:
                if isinstance(content, Exception) and not isinstance(content, (FileNotFoundError, NotADirectoryError)):
                    raise content
        return [None if isinstance(content, Exception) else bytes(content) for content in found]

    def _parse(self, key: str, content: bytes) -> tuple[str, dict[str, Any]]:
        """Return the part of a manifest, and its files with size and SHA-256."""
        try:
            manifest = json.loads(content)
            return str(manifest["part"]), dict(manifest["files"])
        except (ValueError, KeyError, TypeError):
            raise self._damaged(key, _MANIFEST) from None

    def _damaged(self, key: str, name: str) -> LedgerError:
        return LedgerError(f"{self._name}/cells/{key}/{name} is damaged; delete its folder and run the audit again")

    @contextmanager
    def _translated(self, verb: str = "write to") -> Iterator[None]:
        """Turn errors of the filesystem into LedgerError; clients of object stores raise errors of many types."""
        with translate_os_errors(self._name, verb):
            try:
                yield
            except (OSError, UnderfireError):
                raise
            except Exception as error:
                if self._local:
                    raise
                raise LedgerError(f"cannot {verb} {self._name!r}: {type(error).__name__}: {error}") from error


def _manifest(files: Mapping[str, bytes], part: str) -> bytes:
    entries = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return json.dumps({"part": part, "files": entries}, indent=1).encode()


def _write(place: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with place.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _simple(name: str) -> str:
    """Return `name` if it is a single plain component of a path.

    Raises:
        InputError: it contains a separator or another special character, or begins with a dot.
    """
    if not re.fullmatch(r"\w[\w.\-]*", name):
        raise InputError(f"a key or a file name may contain letters, digits, '_', '-' and '.' only, got {name!r}")
    return name


@contextmanager
def translate_os_errors(where: str | Path, verb: str = "write to") -> Iterator[None]:
    """Turn an OSError of the block into a LedgerError of one line that names `where`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            advice = "finished results are kept; free some space and run again"
            raise LedgerError(f"no space left to {verb} {str(where)!r}; {advice}") from None
        raise LedgerError(f"cannot {verb} {str(where)!r}: {error.strerror or error}") from None
