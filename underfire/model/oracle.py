"""A model that reveals only the predicted class of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.errors import InputError, ModelError


class Oracle(nn.Module):
    """A model that reveals only the predicted class of each image, such as a remote service or a decision tree.

    Its logits are one-hot: 1 for the predicted class, 0 for the others. Black-box attacks can use it as a model.

    Args:
        answer: maps images `[B, C, H, W]` to classes `[B]`, a tensor or anything that `torch.as_tensor` converts.
        classes: the number of classes.

    Attributes:
        queries: the number of images classified so far.

    Raises:
        InputError: `classes` is below 2.
        ModelError: on a call, the answer does not have the shape `[B]`, or names a class that does not exist.
    """

    def __init__(self, answer: Callable[[Tensor], Any], classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"an oracle needs at least 2 classes, got {classes}")
        self.answer, self.classes, self.queries = answer, classes, 0

    @torch.no_grad()
    def label(self, x: Tensor) -> Tensor:
        """Return the class of every image, int64 `[B]`."""
        answer = torch.as_tensor(self.answer(x))
        if answer.shape != (len(x),):
            raise ModelError(f"the oracle must name one class per image [{len(x)}], got shape {tuple(answer.shape)}")
        self.queries += len(x)
        labels = answer.to(x.device, torch.int64)
        if bool((labels != answer.to(x.device)).any() | (labels < 0).any() | (labels >= self.classes).any()):
            raise ModelError(f"the oracle must name classes from 0 to {self.classes - 1}, got {answer.tolist()[:8]}")
        return labels

    def forward(self, x: Tensor) -> Tensor:
        """Return the predicted classes as one-hot logits `[B, K]`, without a gradient."""
        return F.one_hot(self.label(x), self.classes).to(x.dtype)
