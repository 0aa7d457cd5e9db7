"""Choose ImageNet photographs that a network classifies correctly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from underfire import data
from underfire.model import Classifier
from underfire.records import Batch

CHUNK = 8  # images in one batch, so that the memory stays near 2 GB and the progress is visible


def photographs(root: Path, model: Classifier, n: int, seed: int) -> Batch:
    """Return the first `n` correctly classified photographs of a random order."""
    source = data.load(f"folder:{root / 'imagenet_sample'}?size=224")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    kept: list[int] = []
    for rows in order.split(50):
        batch = source[rows]
        right = model.predict(batch.x, chunk=50).argmax(1) == batch.y
        kept += rows[right].tolist()
        if len(kept) >= n:
            break
    return source[kept[:n]]


def chunks(count: int) -> Iterator[slice]:
    """Yield slices of at most `CHUNK` samples."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
