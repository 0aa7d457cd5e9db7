"""The store: the results of cells, written atomically to a local folder or an object store.

    ROOT/NAME                      heads, such as `ledger.json`, each replaced as a whole
    ROOT/cells/KEY/manifest.json   the files of a cell: their folder, their sizes and checksums, and its own checksum
    ROOT/cells/KEY/[PART/]FILE     the files themselves

A cell exists if and only if its manifest exists, and the manifest appears last: a local folder is filled under a
temporary name and then renamed; in an object store, the manifest is written after the files. No lock is needed: two
writers of the same key write the same content, and the store ends up with the complete result of one of them.

A head and a manifest are JSON objects with a checksum of their own content (`seal`). So a file that was changed, cut
or deleted after it was written is noticed when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from underfire.audit.backends import MANIFEST, Backend, Folder, Objects
from underfire.audit.seals import is_whole, unseal
from underfire.errors import DiskFull, InputError, LedgerError, UnderfireError
from underfire.files import STAGING, is_full

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Damaged(LedgerError):
    """A stored file is missing or has been changed."""


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
        if "\0" in self.url:
            raise LedgerError(f"{self.url!r} names no folder: a name has no character of code 0")
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
        self._backend: Backend = Folder() if self._local else Objects(self._files)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write the files of a cell; if the store already has a cell of this key, one of the two is kept.

        Raises:
            DiskFull, LedgerError: the store cannot be written; no part of the cell is visible then.
        """
        plain = {_simple(name): content for name, content in files.items()}
        with self._translated():
            self._backend.put(self._cell(key), plain)

    def get(self, key: str, name: str) -> bytes | None:
        """Return one file of a cell; None if the cell or the file does not exist.

        Raises:
            Damaged: the manifest is not valid, or the file is missing or has been changed.
            LedgerError: the store cannot be read.
        """
        return self.read([key], name).get(key)

    def read(self, keys: Iterable[str], name: str) -> dict[str, bytes]:
        """Return the file `name` of every cell that has one, by key; an object store is read in parallel.

        Raises:
            Damaged, LedgerError: as in `get`.
        """
        known = list(keys)
        manifests = self._fetch(f"{self._cell(key)}/{MANIFEST}" for key in known)
        entries = {}
        for key, content in zip(known, manifests, strict=True):
            if content is not None:
                part, files = self._parse(key, content)
                if name in files:
                    entries[key] = (f"{self._cell(key)}/{part}{name}", files[name])
        found = self._fetch(place for place, _ in entries.values())
        result = {}
        for (key, (_, entry)), content in zip(entries.items(), found, strict=True):
            if not is_whole(content, entry):
                raise self._damaged(key, name)
            result[key] = content
        return result

    def damaged(self, keys: Iterable[str]) -> dict[str, str]:
        """Read every file of some cells, and return the path of the first damaged file of each damaged cell, by key.

        A cell that does not exist is not damaged.

        Raises:
            LedgerError: the store cannot be read.
        """
        known, found = list(keys), dict[str, str]()
        manifests = self._fetch(f"{self._cell(key)}/{MANIFEST}" for key in known)
        for key, manifest in zip(known, manifests, strict=True):
            if manifest is None:
                continue
            try:
                part, files = self._parse(key, manifest)
            except Damaged:
                found[key] = f"cells/{key}/{MANIFEST}"
                continue
            contents = self._fetch(f"{self._cell(key)}/{part}{name}" for name in files)
            for (name, entry), content in zip(files.items(), contents, strict=True):
                if not is_whole(content, entry):
                    found.setdefault(key, f"cells/{key}/{part}{name}")
        return found

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
            if place[-1] == MANIFEST and len(place) == depth and not place[-2].startswith(STAGING)
        }

    def size(self, key: str) -> int:
        """Return the size of a cell's files in bytes, as its manifest states it; 0 if the cell does not exist.

        Raises:
            Damaged: the manifest is not valid.
        """
        (content,) = self._fetch([f"{self._cell(key)}/{MANIFEST}"])
        return 0 if content is None else sum(entry["size"] for entry in self._parse(key, content)[1].values())

    def delete(self, key: str) -> None:
        """Delete a cell if it exists; a reader sees the whole cell or none of it.

        Raises:
            LedgerError: the store cannot be written.
        """
        with self._translated():
            self._backend.delete(self._cell(key))

    def put_head(self, name: str, content: bytes) -> None:
        """Write or replace a file beside the cells; a reader sees the whole old content or the whole new content.

        Raises:
            LedgerError: the disk is full, or the store cannot be written.
        """
        with self._translated():
            self._backend.put_head(f"{self._root}/{_simple(name)}", content)

    def get_head(self, name: str) -> bytes | None:
        """Return the content of a file beside the cells, or None if it does not exist.

        Raises:
            LedgerError: the store cannot be read.
        """
        return self._fetch([f"{self._root}/{_simple(name)}"])[0]

    def holds_other_files(self) -> bool:
        """Return whether this is a local folder with files in it, but without cells: something that no run has made.

        What a killed process leaves before the first cell does not count.
        """
        with self._translated("read"):
            return self._backend.holds_other_files(self._root)

    def clean_up(self) -> None:
        """Delete what killed processes left in a local folder, if it is more than an hour old."""
        self._backend.clean_up(self._root)

    def _cell(self, key: str) -> str:
        return f"{self._root}/cells/{_simple(key)}"

    def _fetch(self, places: Iterable[str]) -> list[bytes | None]:
        """Return the content of the file at every place, or None where there is no file."""
        wanted = list(places)
        with self._translated("read"):
            found = self._files.cat_ranges(wanted, None, None, on_error="return") if wanted else []
            for content in found:
                if isinstance(content, Exception) and not isinstance(content, _ABSENT):
                    raise content
        return [None if isinstance(content, Exception) else bytes(content) for content in found]

    def _parse(self, key: str, content: bytes) -> tuple[str, dict[str, dict[str, Any]]]:
        """Return the part of a manifest, and its files with size and SHA-256."""
        try:
            manifest = unseal(content)
            if not re.fullmatch(r"(\w+/)?", manifest["part"]):
                raise ValueError("names a folder elsewhere")
            files = {_simple(name): dict(entry) for name, entry in manifest["files"].items()}
            return manifest["part"], {name: {**entry, "size": int(entry["size"])} for name, entry in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged(key, MANIFEST) from None

    def _damaged(self, key: str, name: str) -> Damaged:
        return Damaged(f"{self._name}/cells/{key}/{name} is damaged; run the audit again, which makes it again")

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
    """Turn an OSError of the block into a DiskFull or a LedgerError, a line that names `where`."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            advice = "finished results are kept; free some space and run again"
            raise DiskFull(f"no space left to {verb} {str(where)!r}; {advice}") from None
        raise LedgerError(f"cannot {verb} {str(where)!r}: {error.strerror or error}") from None
