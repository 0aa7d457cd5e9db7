"""The two kinds of place where a store writes: a local folder, and an object store.

Each writes a cell so that a reader sees the whole cell or none of it. A place is a path within the filesystem.
"""

from __future__ import annotations

import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from underfire.audit.seals import describe, seal
from underfire.files import STAGING, flush, move, staging

MANIFEST = "manifest.json"
_ABANDONED = 3600.0
"""The age in seconds above which a temporary file or folder counts as left by a killed process."""


class Backend(ABC):
    """The interface of a place where cells are written; errors of the filesystem are raised as they are."""

    @abstractmethod
    def put(self, place: str, files: Mapping[str, bytes]) -> None:
        """Write a cell; if there is one already, one of the two is kept."""

    @abstractmethod
    def delete(self, place: str) -> None:
        """Delete a cell if it exists."""

    @abstractmethod
    def put_head(self, place: str, content: bytes) -> None:
        """Write or replace one file."""

    def clean_up(self, root: str) -> None:  # noqa: B027 - an object store has no remains that are visible
        """Delete the temporary files of killed processes."""

    def holds_other_files(self, root: str) -> bool:
        """Return whether there are files that no run has made."""
        return False


class Folder(Backend):
    """Write to a local filesystem: a cell is filled under a temporary name, flushed to the disk and renamed."""

    def put(self, place: str, files: Mapping[str, bytes]) -> None:
        """Write a cell; if another process has written it first, keep that one."""
        target = Path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = staging(target)
        try:
            part.mkdir()
            for name, content in {**files, MANIFEST: manifest(files, "")}.items():
                _write(part / name, content)
                flush(part / name)
            if target.is_dir() and not (target / MANIFEST).exists():  # incomplete, for example a copy made by hand
                self.delete(place)
            try:
                move(part, target)
            except OSError:
                if not (target / MANIFEST).exists():  # if it exists, another process wrote the cell first
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def delete(self, place: str) -> None:
        """Rename a cell, so that it is gone at once, and delete its files."""
        aside = staging(Path(place))
        with suppress(FileNotFoundError):
            Path(place).rename(aside)
            shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink()

    def put_head(self, place: str, content: bytes) -> None:
        """Write a temporary file and rename it."""
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = staging(path)
        try:
            _write(part, content)
            move(part, path)
        finally:
            part.unlink(missing_ok=True)

    def clean_up(self, root: str) -> None:
        """Delete temporary files and folders that are more than an hour old."""
        for folder in (Path(root), Path(root, "cells")):
            for leftover in folder.glob(f"{STAGING}*"):
                with suppress(OSError):
                    if time.time() - leftover.stat().st_mtime > _ABANDONED:
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def holds_other_files(self, root: str) -> bool:
        """Return whether a folder has files but no cells; what a killed process left does not count."""
        folder = Path(root)
        if not folder.is_dir() or (folder / "cells").is_dir():
            return False
        return any(not entry.name.startswith(STAGING) for entry in folder.iterdir())


class Objects(Backend):
    """Write to an object store: the files of a cell first, then the manifest, which makes them visible.

    Args:
        files: the filesystem of fsspec.
    """

    def __init__(self, files: Any) -> None:
        self._files = files

    def put(self, place: str, files: Mapping[str, bytes]) -> None:
        """Write the files under a new name, then the manifest."""
        part = uuid.uuid4().hex[:12]
        try:
            self._files.pipe({f"{place}/{part}/{name}": content for name, content in files.items()})
            self._files.pipe_file(f"{place}/{MANIFEST}", manifest(files, f"{part}/"))
        except BaseException:
            with suppress(Exception):
                self._files.rm(f"{place}/{part}", recursive=True)
            raise

    def delete(self, place: str) -> None:
        """Delete the manifest first, so that no reader finds a part of the cell."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{place}/{MANIFEST}")
        with suppress(FileNotFoundError):
            self._files.rm(place, recursive=True)

    def put_head(self, place: str, content: bytes) -> None:
        """Write or replace one object."""
        self._files.pipe_file(place, content)


def manifest(files: Mapping[str, bytes], part: str) -> bytes:
    """Return the manifest of a cell, which lists its files with their checksums.

    Args:
        files: the contents of the files by name.
        part: the folder of the files within the place of the cell, a name with `/`; empty for the place itself.
    """
    return seal({"part": part, "files": {name: describe(content) for name, content in files.items()}})


def _write(place: Path, content: bytes) -> None:
    place.write_bytes(content)
