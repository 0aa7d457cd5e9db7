"""The data of a threshold: scores of held-out clean images, and which images must not be used for a test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from underfire.measures.detection import p_values
from underfire.records import Batch


@dataclass(frozen=True)
class Calibration:
    """The clean images behind a threshold.

    Attributes:
        scores: the scores of the clean images that the threshold was chosen from.
        seen: marks of these images and of those that the detector was fitted to (see `image_marks`).
    """

    scores: tuple[float, ...]
    seen: frozenset[str]

    def p_values(self, scores: Tensor | ArrayLike) -> np.ndarray:
        """Return the p-value of every score `[m]`, see `measures.detection.p_values`."""
        return p_values(list(self.scores), scores)

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as plain values."""
        return {"scores": list(self.scores), "seen": sorted(self.seen)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the calibration of plain values that `as_dict` returned."""
        return cls(tuple(float(score) for score in values["scores"]), frozenset(map(str, values["seen"])))


def image_marks(x: Tensor) -> list[str]:
    """Return a mark of each image `[B, C, H, W]`, 16 hexadecimal digits of a hash of its pixels in float32.

    Two images have the same mark if and only if (but for chance) their pixels are equal, whatever their names are.
    """
    rows = x.detach().cpu().float().contiguous().numpy()
    return [hashlib.sha256(str(row.shape).encode() + row.tobytes()).hexdigest()[:16] for row in rows]


def unseen(batch: Batch, marks: Sequence[str], seen: frozenset[str]) -> tuple[Batch, int]:
    """Return the images of a batch, with these marks, that were not seen, and the number of the others."""
    keep = [i for i, mark in enumerate(marks) if mark not in seen]
    return batch.take(torch.tensor(keep, dtype=torch.int64)), len(batch) - len(keep)
