"""Read and write safetensors files of trained tensors, with facts about the training in the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from underfire.errors import InputError
from underfire.files import atomic_write


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a safetensors file; an interrupted call leaves no incomplete file under this name.

    Raises:
        DiskFull: no space is left. InputError: the file cannot be written for another reason.
    """
    # a file cannot hold two names of one tensor, such as tied weights, so each is copied
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic_write(path) as part:
        save_file(plain, part, metadata=dict(facts))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the facts of a safetensors file.

    Raises:
        InputError: the file is missing, damaged or of another format.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)


def read_facts(path: Path) -> dict[str, str]:
    """Return the facts of a safetensors file, without its tensors.

    Raises:
        InputError: the file is missing, damaged or of another format.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"there is no weights file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a whole safetensors file: {error}".splitlines()[0]) from error
