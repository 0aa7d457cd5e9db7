"""The base class of detectors: the checks before `fit` and `score`, and files of fitted detectors."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from underfire.catalog import card_of, find
from underfire.domains import domain_of
from underfire.errors import DataError, InputError, ModelError, NotFitted, UnderfireError, shown
from underfire.files import as_path
from underfire.hooks import frozen
from underfire.learning import read_tensors, write_tensors
from underfire.model import Classifier
from underfire.records import Batch

_CHUNK = 64  # clean inputs that are scored at once while a detector learns


class Detector:
    """A detector that learns tensors from clean inputs; a subclass defines `_learn` and `_score`.

    Attributes:
        learned: the tensors that `fit` learned, by name; None before.
        classes: the number of classes of the model that the detector was fitted for.
    """

    least: ClassVar[int] = 1
    """The smallest number of clean inputs that a fit needs."""

    learned: dict[str, Tensor] | None = None
    classes: int = 0

    def fit(self, model: Classifier, clean: Batch, attacked: Batch | None = None) -> Self:
        """Learn the statistics of clean inputs; the threshold is chosen later, from other clean inputs.

        Args:
            model: the classifier; it is not changed.
            clean: clean inputs.
            attacked: not used; only a supervised detector learns from attacked inputs.

        Raises:
            DataError: the inputs do not fit the model, or are too few. ModelError: a learned number is not finite,
                because the model returned NaN or infinity.
        """
        domain_of(model).require_images(self._name)
        if len(clean) < self.least:
            raise DataError(f"{self._name} needs at least {self.least} clean inputs, got {len(clean)}")
        with torch.no_grad(), frozen(model):
            classes = model(clean.x[:1]).shape[1]
            learned = self._learn(model, clean.x)
        if not all(bool(torch.isfinite(value).all()) for value in learned.values()):
            raise ModelError(f"{self._name} learned a number that is not finite; the model's output may be NaN")
        self.learned, self.classes = learned, classes
        return self

    def score(self, model: Classifier, x: Tensor) -> Tensor:
        """Return how suspicious each input is, `[B]`; a higher score is more suspicious.

        Raises:
            NotFitted: `fit` has not been called. DataError: `x` is not a batch of the model's domain. ModelError: the
                model has another number of classes than the one of the fit.
        """
        learned = self._fitted()
        domain_of(model).require_images(self._name)
        if len(x) == 0:
            return x.new_zeros(0)
        with frozen(model):
            logits = model(x)
            if logits.shape[1] != self.classes:
                raise ModelError(
                    f"{self._name} was fitted for a model of {self.classes} classes, this one has {logits.shape[1]}"
                )
            moved = {name: value.to(x) for name, value in learned.items()}
            return self._score(model, x, logits, moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector as a safetensors file, with its name and its options in the metadata.

        Raises:
            NotFitted: `fit` has not been called. InputError: an option is a function, which no file can hold, or
                the path is none.
        """
        learned, options = self._fitted(), self._options()
        try:
            facts = {"detector": self._name, "classes": str(self.classes), "options": json.dumps(options)}
        except TypeError:
            raise InputError(f"{self._name} with a function among its options cannot be saved; use names") from None
        write_tensors(as_path(path), learned, facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a fitted detector of this class from a file that `save` wrote.

        Raises:
            InputError: there is no such file, or it is damaged or of another detector.
        """
        found = load(path)
        if not isinstance(found, cls):
            raise InputError(f"{str(path)!r} holds a {type(found).__name__}, not a {cls.__name__}")
        return found

    # --- what a subclass defines -------------------------------------------------------------------------------------

    def _learn(self, model: Classifier, x: Tensor) -> dict[str, Tensor]:
        """Return the tensors that the scores need, from clean inputs `[n, ...]`."""
        raise NotImplementedError

    def _score(self, model: Classifier, x: Tensor, logits: Tensor, learned: dict[str, Tensor]) -> Tensor:
        """Return the scores `[B]` of inputs whose logits are `[B, K]`."""
        raise NotImplementedError

    # --- checks ------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        card = card_of(type(self))
        return card.name if card else type(self).__name__

    def _fitted(self) -> dict[str, Tensor]:
        if self.learned is None:
            raise NotFitted(f"{self._name} has not been fitted to clean inputs; call fit(model, clean) first")
        return self.learned

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def load(path: str | os.PathLike[str]) -> Detector:
    """Read a fitted detector from a file that `save` wrote; the file is not unpickled.

    Raises:
        InputError: there is no such file, or it is damaged, or of a detector that the catalogue does not have.
    """
    tensors, facts = read_tensors(as_path(path))
    try:
        card = find("detector", facts["detector"])
        detector: Any = card.with_options(**card.check(json.loads(facts["options"])))
        detector.learned, detector.classes = tensors, int(facts["classes"])
    except KeyError as error:
        raise InputError(
            f"{str(path)!r} is not a file of a detector: its metadata has no {shown(error.args[0])}"
        ) from None
    except (ValueError, UnderfireError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a detector: {error}".splitlines()[0]) from None
    if not isinstance(detector, Detector):
        raise InputError(f"{str(path)!r}: {facts['detector']} cannot be loaded from a file")
    return detector


def in_chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Split inputs into parts that a detector can pass to the model at once while it learns."""
    return x.split(_CHUNK)
