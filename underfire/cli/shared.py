"""Functions that the verbs share: consoles, one-line errors, JSON, atomic writes and devices.

This module imports torch only inside functions, so that `underfire --help` is fast.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from underfire.errors import InputError, ModelNotice
from underfire.files import is_full, move

if TYPE_CHECKING:
    from underfire.model import Classifier


@dataclass
class _Results:
    """The stream of results: stdout as it was before `reserve_stdout` redirected other output to stderr."""

    stream: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream or sys.stdout, name)


RESULTS: Any = _Results()
# Names may contain brackets and colons, which rich would read as markup and emoji.
OUT = Console(file=RESULTS, highlight=False, markup=False, emoji=False)
ERR = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line of at most 2,000 characters, with the file for an `OSError`."""
    if isinstance(error, OSError) and error.strerror:
        files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        hint = "; free some space and run the same command again" if is_full(error) else ""
        return " ".join(f"{error.strerror}{': ' if files else ''}{files}{hint}".split())
    return cut(" ".join(str(error).split()) or type(error).__name__)


def cut(text: str, length: int = 2000) -> str:
    """Return a text without its middle if it is longer than `length` characters."""
    half = length // 2 - 5
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def to_plain(value: Any) -> Any:
    """Convert `value` for JSON: tensors to lists, dataclasses to objects, NaN and infinity to null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def to_json(value: Any) -> str:
    """Return strict JSON, indented by two spaces."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Reserve stdout for results: what code of the user and other libraries print goes to stderr.

    This also holds for worker processes and for programs that the code starts, if stdout is the process's own.
    Notices about the model become one line each.
    """
    stdout = sys.stdout
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", ModelNotice)
        usual = warnings.showwarning
        warnings.showwarning = lambda message, category, *rest: (
            ERR.print(f"note: {message}") if issubclass(category, ModelNotice) else usual(message, category, *rest)
        )
        stack.callback(setattr, RESULTS, "stream", RESULTS.stream)
        RESULTS.stream = stdout
        if stdout is sys.__stdout__ and stdout is not None:
            stdout.flush()
            kept, results = os.dup(1), os.fdopen(os.dup(1), "w", encoding=stdout.encoding, errors=stdout.errors)
            stack.callback(os.close, kept)
            RESULTS.stream = stack.enter_context(results)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_write_all(folder: Path, names: Sequence[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a staging folder; at the end, move the files `names` from it to `folder`, or none of them after an error.

    Raises:
        InputError: `folder` is a file, or one of `names` is in it already and `force` is not given.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --out must be a folder")
    clash = [name for name in names if (folder / name).exists()]
    if clash and not force:
        raise InputError(f"{folder / clash[0]} exists already; pass --force to overwrite, or another path")
    parent = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    staging = Path(tempfile.mkdtemp(prefix=".underfire-", dir=parent))
    try:
        yield staging
        for name in names:
            if (staging / name).exists() or not (folder / name).exists():  # `publish` has moved the others
                publish(staging, folder, name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, folder: Path, name: str) -> None:
    """Move a finished file from a staging folder to `folder`, before the other files are finished."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    move(staging / name, folder / name)


def device(name: str | None) -> str:
    """Return the device `name`; by default the first GPU, or the CPU if there is none.

    Raises:
        InputError: torch cannot compute on the device.
    """
    import torch

    from underfire.validate import check_device

    fallback = "cuda" if torch.cuda.is_available() else "cpu"
    return check_device(fallback if name is None else name)


def output_of(text: str | None) -> str | int | None:
    """Return the value of `--output`: a position in a tuple as a number, anything else as it is.

    >>> output_of("1"), output_of("binary")
    (1, 'binary')
    """
    return int(text) if text is not None and text.isdecimal() else text


def open_model(uri: str, output: str | None, place: str | None) -> Classifier:
    """Return the model of `--model` and `--output`, on the device `place`, or on the default device if it is None.

    Raises:
        InputError, ModelError: the device or the model cannot be used.
    """
    from underfire import models

    return models.load(uri, device=device(place), output=output_of(output))


def print_json(value: Any) -> None:
    """Print `value` as JSON on stdout, unwrapped."""
    print(to_json(value), file=RESULTS, flush=True)
