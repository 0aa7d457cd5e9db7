"""The classifier under test: a module that maps inputs to logits, with its normalisation and class names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.domains import IMAGES, Domain
from underfire.errors import InputError, ModelError


@dataclass
class Count:
    """The number of images that passed forward and backward through a classifier."""

    forwards: int = 0
    backwards: int = 0


class Classifier(nn.Module):
    """Map images `[B, C, H, W]` in `[0, 1]`, or inputs of another domain, to logits.

    The classifier normalises the images itself, so that perturbations are measured on images in `[0, 1]`. The wrapped
    module is not changed and keeps its device and dtype; images are cast to its dtype.

    Args:
        module: maps normalised images to logits `[B, K]`.
        mean: subtracted from every channel, a number or one per channel, in units of the image.
        std: divides every channel after that.
        labels: names of the `K` classes; None if they are not known.
        domain: the kind of input that the module takes; images `[B, C, H, W]` in `[0, 1]` if not given.

    Raises:
        ModelError: `std` is not positive; or, on a call, the module's output is not `[B, K]` with the expected `K`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        labels: Sequence[str] | None = None,
        domain: Domain = IMAGES,
    ) -> None:
        super().__init__()
        self.module, self.domain = module, domain
        self.training = module.training
        self.labels = tuple(labels) if labels is not None else None
        like = next(module.parameters(), None)
        device = like.device if like is not None else None
        channel = (-1, *[1] * (domain.ndim - 2))
        shift, scale = (torch.as_tensor(v, dtype=torch.float32, device=device).reshape(channel) for v in (mean, std))
        if not bool((scale > 0).all()):
            raise ModelError(f"std must be positive in every channel, got {std}")
        self.register_buffer("mean", shift, persistent=False)
        self.register_buffer("std", scale, persistent=False)
        self._plain = bool((shift == 0).all() and (scale == 1).all())
        self._counts: list[Count] = []

    @property
    def wrapped(self) -> nn.Module:
        """Return the module that was wrapped."""
        return self.module

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`, in the dtype of `x`."""
        normalised = x if self._plain else (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        if parameter is not None and parameter.dtype != normalised.dtype:
            normalised = normalised.to(parameter.dtype)
        logits = self.module(normalised)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"the model must map images {tuple(x.shape)} to logits [{len(x)}, K], got {shape}")
        if self.labels is not None and logits.shape[1] != len(self.labels):
            raise ModelError(f"the model has {logits.shape[1]} outputs but {len(self.labels)} class names were given")
        if self._counts:
            self._count(logits)
        return logits.to(x.dtype)

    def _count(self, logits: Tensor) -> None:
        size, counts = len(logits), tuple(self._counts)
        for count in counts:
            count.forwards += size
        if logits.requires_grad:

            def count_backwards(_: Tensor) -> None:
                for count in counts:
                    count.backwards += size

            logits.register_hook(count_backwards)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the images that pass forward and backward through the classifier in a `with` block."""
        count = Count()
        self._counts.append(count)
        try:
            yield count
        finally:
            self._counts = [c for c in self._counts if c is not count]

    @torch.no_grad()
    def predict(self, x: Tensor, *, batch_size: int = 256) -> Tensor:
        """Return logits `[B, K]`, computed without a graph in evaluation mode, `batch_size` images at a time.

        Raises:
            ModelError: the module does not take images of this shape, or a logit is NaN or infinite.
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            logits = torch.cat([self(part) for part in x.split(batch_size)])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch raises it if shapes do not fit
            reason = str(error).split("\n", 1)[0]
            raise ModelError(f"the model does not take images of shape {list(x.shape)}: {reason}") from error
        finally:
            for module, training in modes:
                module.training = training
        if not bool(torch.isfinite(logits).all()):
            bad = int((~torch.isfinite(logits).all(1)).sum())
            raise ModelError(f"the model returns NaN or infinite logits for {bad} of {len(x)} images")
        return logits

    def name_of(self, index: int) -> str:
        """Return the name of class `index`, or its number if the names are not known."""
        return self.labels[index] if self.labels is not None else str(index)


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
