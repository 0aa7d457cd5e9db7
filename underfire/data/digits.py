"""Read the digits of scikit-learn: 1,797 scans of 8 x 8 pixels (UCI optical recognition of digits, 1998)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from underfire.records import Batch

LABELS = tuple("0123456789")
TRAIN = 1198  # two thirds


@cache
def scans() -> tuple[Tensor, Tensor]:
    """Return all scans, float `[1797, 1, 8, 8]` in `[0, 1]`, and their labels, int64 `[1797]`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target, dtype=torch.int64)


def split_indices(split: str) -> Tensor:
    """Return the indices of the scans of "train" (two thirds) or "test" (the others), int64; the same in every run."""
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    return order[:TRAIN] if split == "train" else order[TRAIN:]


class Digits:
    """The scans of one split, without any change."""

    labels: tuple[str, ...] | None = LABELS

    def __init__(self, split: str) -> None:
        self._indices = split_indices(split)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: list[int]) -> Batch:
        """Return the scans at `index`, `[B, 1, 8, 8]`."""
        which = self._indices[index]
        images, labels = scans()
        return Batch(images[which], labels[which], tuple(f"digit-{scan:04d}" for scan in which.tolist()))
