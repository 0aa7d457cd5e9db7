"""The target of an audit: the loaded model, images and interpreters of a spec."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from underfire import __version__, data, models
from underfire.audit.labels import open_data
from underfire.audit.methods import interpreter_of
from underfire.audit.schema import AuditSpec
from underfire.audit.values import fingerprint, module
from underfire.errors import DataError, SpecError, Unsupported
from underfire.hooks import unwrap
from underfire.model import Classifier
from underfire.records import Batch

PREVIEWED = 1024
"""The largest number of images that are checked before the first cell runs; of more, an evenly spread choice."""


@dataclass(frozen=True)
class Preview:
    """Labels, logits and a hash of the images that are checked before the first cell runs.

    Attributes:
        y: labels, int64 `[n]`, on the CPU.
        logits: logits of the model, `[n, K]`, on the CPU.
        first: the first two images, on which methods are tried.
        digest: a hash of all images of the preview.
    """

    y: Tensor
    logits: Tensor
    first: Batch
    digest: str


@dataclass
class Target:
    """A spec with its model, its images and its interpreters by title."""

    spec: AuditSpec
    model: Classifier
    data: data.Dataset
    interpreters: dict[str, Callable[..., Tensor]]

    @cached_property
    def preview(self) -> Preview:
        """The preview of the images and of the model's logits.

        Raises:
            DataError: there is no image, a pixel is outside `[0, 1]`, or a label is not one of the model's classes.
            ModelError: the model does not return finite logits `[B, K]`.
        """
        if len(self.data) == 0:
            raise DataError(f"{self.spec.data.uri} holds no image")
        index = self.spread(PREVIEWED)
        digest, labels, logits = hashlib.sha256(str(len(self.data)).encode()), [], []
        for part in index.split(64):  # not `batch_size`: the digest must not depend on it
            batch = self._read(part)
            logits.append(self.logits(batch).cpu())
            labels.append(batch.y)
            for content in (batch.x, batch.y, batch.mask):
                digest.update(b"" if content is None else content.contiguous().numpy().tobytes())
            digest.update(repr(batch.ids).encode())
        return Preview(torch.cat(labels), torch.cat(logits), self.data[index[:2]], digest.hexdigest())

    def _read(self, index: Tensor) -> Batch:
        """Return images; if one cannot be read, raise DataError with all images of the data that cannot."""
        try:
            return self.data[index]
        except DataError:
            self.data.check()
            raise

    @cached_property
    def has_gradient(self) -> bool:
        """Whether the model has a gradient by the first images that is not zero."""
        with torch.enable_grad():
            x = self.preview.first.x.to(self.spec.device).requires_grad_(True)
            try:
                answer = self.model(x)
                gradient = torch.autograd.grad(answer.sum(0)[0], x)[0] if answer.requires_grad else None
            except RuntimeError:  # the answer depends on no image, or was computed where gradients are off
                gradient = None
        return gradient is not None and bool(gradient.any())

    def refusal(self, error: Exception) -> str:
        """Return in one line why a method that raised `error` cannot be run on this model; empty for other failures."""
        if isinstance(error, Unsupported):
            return " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and not self.has_gradient:
            return "the model has no gradient by its image"
        return ""

    @property
    def origin(self) -> dict[str, Any]:
        """The values that every result depends on: version, model, data and device, as plain values."""
        spec = self.spec
        return {
            "underfire": __version__,
            "model": [spec.model.model_dump(exclude={"labels"}), self.weights],
            "data": [spec.data.model_dump(), self.preview.digest],
            "device": spec.device,
        }

    def spread(self, count: int) -> Tensor:
        """Return the indices of `count` images, or of all if there are fewer, evenly spread over the data; int64."""
        last = len(self.data) - 1
        return torch.linspace(0, last, min(last + 1, count), dtype=torch.float64).round().long()

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits `[B, K]` of a batch.

        Raises:
            DataError, ModelError: as in `preview`.
        """
        x, y = batch.x, batch.y
        inside = ((x >= 0) & (x <= 1)).flatten(1).all(1)  # NaN fails too
        if not bool(inside.all()):
            i = int((~inside).nonzero()[0])
            values = f"from {x[i].min():g} to {x[i].max():g}"
            advice = "mean and std belong to the model, not to the data"
            raise DataError(f"pixels of {batch.ids[i]!r} range {values}; they must be in [0, 1]: {advice}")
        logits = self.model.predict(x.to(self.spec.device), batch_size=self.spec.batch_size)
        if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
            i = int(((y < 0) | (y >= logits.shape[1])).nonzero()[0])
            classes = f"the model's {logits.shape[1]} classes (0 to {logits.shape[1] - 1})"
            raise DataError(f"the label {int(y[i])} of {batch.ids[i]!r} is outside {classes}")
        return logits

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes: those of the data, which are the model's if both have some, or the model's."""
        return self.data.labels or self.model.labels

    @cached_property
    def weights(self) -> str:
        """A hash of the model: its weights, its structure, and the source of layers that are not part of torch."""
        shells = [part for part in self.model.modules() if isinstance(part, Classifier)]
        parts = [fingerprint((part.mean, part.std, part.domain)) for part in shells]
        return hashlib.sha256("\n".join((*parts, module(unwrap(self.model)))).encode()).hexdigest()


def open_target(spec: AuditSpec) -> Target:
    """Load the model, the images and the interpreters of a complete spec.

    Raises:
        SpecError: the device is not available.
        ModelError, DataError: the model or the data cannot be loaded.
    """
    try:
        torch.zeros(1, device=spec.device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SpecError(f"'device' {spec.device!r} is not available here; use cpu, or cuda with a GPU") from None
    m, d = spec.model, spec.data
    model = models.load(m.uri, device=spec.device, mean=m.mean, std=m.std, labels=m.labels)
    images = open_data(d.uri, model, n=d.n, seed=d.seed, names=d.classes)
    return Target(spec, model, images, {entry.title: interpreter_of(entry) for entry in spec.interpreters})
