"""Keep what an experiment has computed in the work folder, so that an interrupted run loses little."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.detectors import Detector, load
from underfire.learning import read_tensors, write_tensors
from underfire.records import Batch
from underfire.reproductions.registry import Progress, Setting


@dataclass(frozen=True)
class Store:
    """A folder of tensors and fitted detectors, each of which is computed once.

    Attributes:
        folder: the folder of the files.
    """

    folder: Path

    @classmethod
    def of(cls, setting: Setting, name: str, facts: Mapping[str, Any]) -> Store:
        """Return the folder of everything that these facts determine; other facts have another folder."""
        text = json.dumps(dict(facts) | {"seed": setting.seed}, sort_keys=True, default=str)
        folder = setting.work / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return self._path(name).is_file()

    def record(
        self, name: str, compute: Callable[[], tuple[Mapping[str, Tensor], Any]]
    ) -> tuple[dict[str, Tensor], Any]:
        """Return tensors and a plain value from their file, or compute them and write the file."""
        path = self._path(name)
        if not path.is_file():
            tensors, value = compute()
            write_tensors(path, tensors, {"value": json.dumps(value)})
        found, facts = read_tensors(path)
        return found, json.loads(facts["value"])

    def tensors(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return tensors from their file, or compute them and write the file."""
        return self.record(name, lambda: (compute(), None))[0]

    def detector(self, name: str, fit: Callable[[], Detector]) -> Detector:
        """Return a fitted detector from its file, or fit it and write the file."""
        path = self._path(name)
        if not path.is_file():
            fit().save(path)
        return load(path)

    def in_parts(
        self, name: str, batch: Batch, size: int, compute: Callable[[Batch], Tensor], progress: Progress
    ) -> Tensor:
        """Return a tensor with one row for each image of a batch, computed for `size` images at a time.

        Each part has its own file, so that an interrupted run loses one part at most.
        """
        found: list[Tensor] = []
        parts = torch.arange(len(batch)).split(size)
        for number, rows in enumerate(parts):
            progress(number, len(parts), name)
            part = batch.take(rows)
            found.append(self.tensors(f"{name}-{number}", lambda part=part: {"rows": compute(part)})["rows"])  # type: ignore[misc]
        return torch.cat(found) if found else batch.x[:0]

    def _path(self, name: str) -> Path:
        plain = "".join(c if c.isalnum() or c in "-.+_" else "-" for c in name)
        return self.folder / f"{plain}.safetensors"
