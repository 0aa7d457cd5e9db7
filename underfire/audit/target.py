"""The target of an audit: the loaded model, images and interpreters of a spec."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from underfire import __version__, data, models
from underfire.audit.labels import open_data
from underfire.audit.methods import interpreter_of
from underfire.audit.opening import Others, weights_of
from underfire.audit.schema import AuditSpec
from underfire.data.dataset import check_sizes
from underfire.errors import DataError, ModelError, SpecError, Unsupported
from underfire.model import Classifier, model_errors
from underfire.records import Batch
from underfire.validate import check_device

PREVIEWED = 1024
"""The largest number of images that are classified before the first cell runs, evenly spread over the data."""

HELD_OUT = 256
"""The largest number of images that detectors learn from and their thresholds are chosen from, if a spec names none."""


@dataclass(frozen=True)
class Preview:
    """The facts about the images that are known before the first cell runs.

    Attributes:
        y: labels of the images that the model classifies, int64 `[n]`, on the CPU.
        logits: logits of the model for them, `[n, K]`, on the CPU.
        first: the first two images, on which methods are tried.
        digest: a hash of every image of the data, with its label, its mask and its name.
        seconds: the shortest time that the model took for one image of a batch, in seconds.
    """

    y: Tensor
    logits: Tensor
    first: Batch
    digest: str
    seconds: float


@dataclass
class Target:
    """A spec with its model, its images and its interpreters by title, and further models of a Python caller by URI."""

    spec: AuditSpec
    model: Classifier
    data: data.Dataset
    interpreters: dict[str, Callable[..., Tensor]]
    given: Mapping[str, Classifier] = field(default_factory=dict)

    @cached_property
    def preview(self) -> Preview:
        """The preview: every image is read and checked, and at most `PREVIEWED` are classified.

        Raises:
            DataError: there is no image, a pixel is outside `[0, 1]`, images differ in size, a label is not one of the
                model's classes, or the name of an image is not a text that can be written.
            ModelError: the model does not return finite logits `[B, K]`.
        """
        if len(self.data) == 0:
            raise DataError(f"{self.spec.data.uri} holds no image")
        classified = torch.zeros(len(self.data), dtype=torch.bool)
        classified[self.spread(PREVIEWED)] = True
        first = self._read(classified.nonzero().flatten()[:2])
        digest, labels, logits, seconds = hashlib.sha256(str(len(self.data)).encode()), [], [], float("inf")
        for part in torch.arange(len(self.data)).split(64):  # not `batch_size`: the digest must not depend on it
            batch = self._read(part)
            _check_pixels(batch)
            check_sizes((first.x[0], batch.x[0]), (first.ids[0], batch.ids[0]))  # of one batch, they are equal
            if len(chosen := classified[part].nonzero().flatten()):
                start = time.perf_counter()
                logits.append(self.logits(batch.take(chosen)).cpu())
                seconds = min(seconds, (time.perf_counter() - start) / len(chosen))
                labels.append(batch.y[chosen])
            _check_classes(batch, logits[0].shape[1])
            for content in (batch.x, batch.y, batch.mask):
                digest.update(b"" if content is None else content.contiguous().numpy().tobytes())
            digest.update(repr(batch.ids).encode())
        return Preview(torch.cat(labels), torch.cat(logits), first, digest.hexdigest(), seconds)

    @cached_property
    def held_out(self) -> tuple[Batch, str]:
        """The images that detectors learn from and their thresholds are chosen from, and a hash of them.

        Raises:
            DataError: an image cannot be read or is one that the audit attacks, or there is none.
        """
        given, d = self.spec.held_out, self.spec.data
        chosen = given or d
        images = open_data(
            chosen.uri, self.model, n=chosen.n if given else None, seed=chosen.seed, names=chosen.classes
        )
        first = 0
        if given is None:  # a larger draw begins with the images that the audit attacks
            first = len(self.data)
            images = images.subset(min(len(images), first + HELD_OUT), d.seed)
        batch = images[first:]
        if len(batch) < 2:
            raise DataError(f"{chosen.uri} has {len(batch)} images that are not attacked; name others as 'held_out'")
        _check_pixels(batch)
        if given and given.uri == d.uri:
            known = {name for part in self.data.batches(64) for name in part.ids}
            if both := known.intersection(batch.ids):
                raise DataError(f"'held_out' has {len(both)} images that the audit attacks, such as {min(both)!r}")
        content = repr(batch.ids).encode() + batch.x.contiguous().numpy().tobytes()
        return batch, hashlib.sha256(content).hexdigest()

    @property
    def held_out_halves(self) -> tuple[Batch, Batch]:
        """The held-out images that detectors learn from, and those that thresholds are chosen from."""
        batch = self.held_out[0]
        places = torch.arange(len(batch))
        return batch.take(places[::2]), batch.take(places[1::2])

    def _read(self, index: Tensor) -> Batch:
        """Return images; if one cannot be read, raise DataError with all images of the data that cannot."""
        try:
            return self.data[index]
        except DataError:
            self.data.check()
            raise

    @cached_property
    def has_gradient(self) -> bool:
        """Return whether the model has a gradient with respect to the first images that is not zero.

        Raises:
            ModelError: the model's own code raised an error that is not torch's.
        """
        with torch.enable_grad():
            x = self.preview.first.x.to(self.spec.device).clone().requires_grad_(True)
            try:
                with model_errors(x):
                    answer = self.model(x)
                    gradient = torch.autograd.grad(answer.sum(0)[0], x)[0] if answer.requires_grad else None
            except (RuntimeError, ModelError, Unsupported) as error:
                if isinstance(error, ModelError) and not isinstance(error.__cause__, RuntimeError):
                    raise
                gradient = None  # the answer depends on no image, or was computed where gradients are off
        return gradient is not None and bool(gradient.any())

    def refusal(self, error: Exception) -> str:
        """Return in one line why a method that raised `error` cannot be run on this model; empty for other failures."""
        if isinstance(error, Unsupported):
            return " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and not self.has_gradient:
            return "the model has no gradient with respect to its input"
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
        _check_pixels(batch)
        logits = self.model.predict(batch.x.to(self.spec.device), chunk=self.spec.batch_size)
        _check_classes(batch, logits.shape[1])
        return logits

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes: those of the data, which are the model's if both have some, or the model's."""
        return self.data.labels or self.model.labels

    @cached_property
    def weights(self) -> str:
        """A hash of the model: its weights, its structure, and the source of layers that are not part of torch."""
        return weights_of(self.model)

    @cached_property
    def others(self) -> Others:
        """The sources and victims of the spec, each opened when it is first asked for."""
        return Others(self.spec, self.model, self.given)

    @cached_property
    def outputs(self) -> int:
        """The number of classes of the model."""
        return int(self.model.predict(self.data[:1].x.to(self.spec.device)).shape[1])

    def on(self, model: Classifier) -> Target:
        """Return the target with another model, and the same images."""
        other = copy.copy(self)
        other.model = model
        for known in ("has_gradient", "weights", "labels"):
            vars(other).pop(known, None)
        return other


def _check_pixels(batch: Batch) -> None:
    """Raise DataError if a pixel is outside `[0, 1]`, or if the name of an image cannot be written."""
    inside = ((batch.x >= 0) & (batch.x <= 1)).flatten(1).all(1)  # NaN fails too
    if not bool(inside.all()):
        i = int((~inside).nonzero()[0])
        values = f"from {batch.x[i].min():g} to {batch.x[i].max():g}"
        bytes_ = 1 < batch.x[i].max() <= 255 and batch.x[i].min() >= 0
        advice = "divide them by 255" if bytes_ else "mean and std belong to the model, not to the data"
        raise DataError(f"pixels of {batch.ids[i]!r} range {values}; they must be in [0, 1]: {advice}")
    for name in batch.ids:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"the name {name!r} of an image is not UTF-8; rename the file") from None


def _check_classes(batch: Batch, classes: int) -> None:
    """Raise DataError if a label is not one of the model's classes."""
    outside = (batch.y < 0) | (batch.y >= classes)
    if bool(outside.any()):
        i = int(outside.nonzero()[0])
        known = f"the model's {classes} classes (0 to {classes - 1})"
        raise DataError(f"the label {int(batch.y[i])} of {batch.ids[i]!r} is outside {known}")


def open_target(spec: AuditSpec) -> Target:
    """Load the model, the images and the interpreters of a complete spec.

    Raises:
        SpecError: the device is not available.
        ModelError, DataError: the model or the data cannot be loaded.
    """
    try:
        check_device(spec.device)
    except Unsupported as error:
        raise SpecError(f"'device' {str(error).removeprefix('device ')}") from None
    m, d = spec.model, spec.data
    model = models.load(m.uri, device=spec.device, mean=m.mean, std=m.std, labels=m.labels, output=m.output)
    images = open_data(d.uri, model, n=d.n, seed=d.seed, names=d.classes)
    if spec.sample and spec.sample.chosen is not None:
        images = images.select(torch.tensor(spec.sample.chosen), f"sample={spec.sample.hash}")
    return Target(spec, model, images, {entry.title: interpreter_of(entry) for entry in spec.interpreters})
