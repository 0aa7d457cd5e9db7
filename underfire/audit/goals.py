"""The goals of targeted attacks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.classes import class_number
from underfire.records import Batch

KINDS = ("untargeted", "random-target", "least-likely")
"""The goals that are not one class for all images."""


def choose_goal(goal: str, logits: Tensor, batch: Batch, seed: int, names: Sequence[str] = ()) -> Tensor | None:
    """Return the class that each sample should reach, int64 `[B]`; None for `"untargeted"`.

    A random goal depends only on the seed and the name of the image, so it does not change with the batch. No goal is
    the label of its sample, except a class that the spec names.

    Args:
        goal: one of `KINDS`, or a class by name or number.
        logits: logits of the clean samples, `[B, K]`.
        batch: the clean samples.
        seed: the seed of random goals.
        names: the names of the classes; empty if they have none.

    Raises:
        InputError: there is no such class.
    """
    if goal == "untargeted":
        return None
    if goal == "least-likely":
        return logits.scatter(1, batch.y[:, None], torch.inf).argmin(1)
    if goal != "random-target":
        return torch.full_like(batch.y, class_number(goal, names, logits.shape[1]))
    numbers = [int(hashlib.sha256(repr((seed, name)).encode()).hexdigest()[:12], 16) for name in batch.ids]
    draws = torch.tensor([number % (logits.shape[1] - 1) for number in numbers], device=batch.y.device)
    return draws + (draws >= batch.y)


def other_than_label(goal: Tensor | None, y: Tensor, outputs: int) -> Tensor | None:
    """Return the goals with another class in place of those that equal the label, so that an attack accepts them.

    The tables of an audit leave out the samples whose goal is their label.
    """
    return goal if goal is None else torch.where(goal == y, (y + 1) % outputs, goal)
