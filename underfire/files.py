"""Write files whole or not at all, also when the process is killed or the power fails.

The content goes to a temporary file, which is flushed to the disk and then renamed; the folder is flushed after that.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from underfire.errors import DiskFull, InputError, shown

STAGING = ".part-"
"""The beginning of the names of temporary files and folders."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file or folder as a Path.

    Raises:
        InputError: it is neither a text nor a path, has no name, or contains the character of code 0.
    """
    try:
        found = Path(path)
    except TypeError:
        raise InputError(f"a path must be a text or a pathlib.Path, got {shown(path)}") from None
    if not found.name or "\0" in str(found):
        raise InputError(f"{shown(str(path))} names no file or folder")
    return found


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk, or the user's share of it, is full."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_SPACE)


def staging(path: Path) -> Path:
    """Return a new name for a temporary file or folder beside `path`."""
    return path.with_name(f"{STAGING}{uuid.uuid4().hex[:12]}")


def flush(path: Path) -> None:
    """Flush a file or the entries of a folder to the disk; do nothing where the system cannot flush folders.

    Raises:
        OSError: the content of the file cannot be written to the disk.
    """
    folder = path.is_dir()
    with suppress(OSError) if folder else nullcontext():
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def move(part: Path, path: Path) -> None:
    """Rename a file or folder, which must be complete, and flush both it and the folder of the new name.

    An existing file at `path` is replaced; a folder is not.

    Raises:
        OSError: the name cannot be taken.
    """
    flush(part)
    part.rename(path) if part.is_dir() else part.replace(path)
    flush(path.parent)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write to; at the end it replaces `path`, and after an error it is deleted.

    Raises:
        DiskFull: no space is left for the file.
        InputError: the file cannot be written for another reason.
    """
    part = staging(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        move(part, path)
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"no space left to write {str(path)!r}; free some space and run again") from None
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()
