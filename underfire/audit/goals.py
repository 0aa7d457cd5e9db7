"""The goals of targeted attacks."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from underfire.records import Batch


def choose_goal(goal: str, logits: Tensor, batch: Batch, seed: int) -> Tensor | None:
    """Return the class that each sample should reach, int64 `[B]`, never its label; None for `"untargeted"`.

    A random goal depends only on the seed and the name of the image, so it does not change with the batch.

    Args:
        goal: `"untargeted"`, `"random-target"` or `"least-likely"`.
        logits: logits of the clean samples, `[B, K]`.
        batch: the clean samples.
        seed: the seed of random goals.
    """
    if goal == "untargeted":
        return None
    if goal == "least-likely":
        return logits.scatter(1, batch.y[:, None], torch.inf).argmin(1)
    numbers = [int(hashlib.sha256(repr((seed, name)).encode()).hexdigest()[:12], 16) for name in batch.ids]
    draws = torch.tensor([number % (logits.shape[1] - 1) for number in numbers], device=batch.y.device)
    return draws + (draws >= batch.y)
