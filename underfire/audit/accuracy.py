"""Check that a model is better than guessing: otherwise its results would mean nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.errors import ModelError


def check_accuracy(logits: Tensor, y: Tensor) -> None:
    """Raise ModelError if the model is no better on the data than guessing: its results would mean nothing."""
    from scipy.stats import binom

    n, classes = logits.shape
    right = int((logits.argmax(1) == y).sum())
    outcome = f"the model gets {right} of {n} images right"
    renamed = _renamed(logits, y)
    if renamed is not None and renamed >= max(n / 2, 2 * right):
        raise ModelError(f"{outcome}, but would get {renamed} with its classes in another order: wrong label order?")
    below = binom.cdf(right, n, 1 / classes) < 0.001
    guessing = n >= 20 and binom.sf(right - 1, n, 1 / classes) > 0.05
    if below or guessing:
        expected = f"guessing among {classes} classes would get {n / classes:.3g}"
        raise ModelError(f"{outcome}, {expected}: wrong normalisation or label order?")


def _renamed(logits: Tensor, y: Tensor) -> int | None:
    """Return how many images are right under the best permutation of the classes; None if there are too few images."""
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    if len(y) < 5 * classes:
        return None
    table = torch.bincount(logits.argmax(1) * classes + y, minlength=classes**2).view(classes, classes).numpy()
    return int(table[linear_sum_assignment(table, maximize=True)].sum())
