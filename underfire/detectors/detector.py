"""The base class of detectors: what a subclass declares and defines, and the checks before `fit` and `score`."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from underfire.catalog import card_of
from underfire.detectors.evaluated import Evaluated, evaluate
from underfire.domains import domain_of
from underfire.errors import DataError, InputError, ModelError, NotFitted
from underfire.hooks import Probe, frozen
from underfire.learning import model_fingerprint
from underfire.model import Classifier
from underfire.records import Batch

_CHUNK = 64  # clean inputs that are scored at once while a detector learns


@dataclass(frozen=True)
class Fit:
    """Facts about the fit of a detector.

    Attributes:
        classes: the number of classes of the model.
        shape: the shape of one input.
        model: the fingerprint of the model (see `learning.model_fingerprint`).
        probes: the layers that the detector reads, and how they are pooled.
        dropped: the number of clean inputs that were left out because the model misclassifies them.
        unsuccessful: the number of attacked inputs that were left out because the model classifies them as labelled, or
            misclassifies the clean input of the same name.
    """

    classes: int
    shape: tuple[int, ...]
    model: str
    probes: tuple[Probe, ...] = ()
    dropped: int = 0
    unsuccessful: int = 0


class Detector:
    """A detector that learns tensors from inputs; a subclass defines `_learn` and `_score`.

    A subclass declares what it learns from. One that reads layers defines `_probes`; all detectors of a `fit_all` share
    the forward passes.

    Attributes:
        learned: the tensors that `fit` learned, by name; None before.
        about: facts about the fit; None before.
    """

    least: int = 1
    """The smallest number of clean inputs that a fit needs."""

    least_per_class: ClassVar[int] = 0
    """The smallest number of clean inputs of every class that a fit needs."""

    labelled: ClassVar[bool] = False
    """True if it learns only from clean inputs that the model classifies as labelled, and from the successful attacks
    on such inputs; the others are dropped and counted."""

    learned: dict[str, Tensor] | None = None
    about: Fit | None = None

    @property
    def most_per_class(self) -> int | None:
        """Return how many clean inputs of each class, the first ones, it learns from; None is all."""
        return None

    @property
    def dropped(self) -> int:
        """Return the number of clean inputs that the fit left out because the model misclassifies them."""
        return self.about.dropped if self.about else 0

    def fit(self, model: Classifier, clean: Batch, attacked: Batch | None = None) -> Self:
        """Learn the statistics of clean inputs; the threshold is chosen later, from other clean inputs.

        Args:
            model: the classifier; it is not changed.
            clean: clean inputs.
            attacked: inputs that were attacked, with the labels of the clean ones; only a supervised detector learns
                from them.

        Raises:
            DataError: the inputs do not fit the model, or are too few, in all or of a class. ModelError: the output of
                the model or a learned number is not finite.
        """
        from underfire.detectors.fitting import fit_together

        fit_together([self], model, clean, attacked)
        return self

    def score(self, model: Classifier, x: Tensor) -> Tensor:
        """Return how suspicious each input is, `[B]`; a higher score is more suspicious.

        Raises:
            NotFitted: `fit` has not been called. DataError: `x` is not a batch of the model's domain, or its images
                have another size than those of the fit. ModelError: it is not the model of the fit, or its output is
                not finite.
        """
        self.check_usable(model, x)
        if len(x) == 0:
            return x.new_zeros(0)
        with frozen(model):
            return self.score_evaluated(model, evaluate(model, x, self.fitted().probes))

    def score_evaluated(self, model: Classifier, inputs: Evaluated) -> Tensor:
        """Return the scores `[B]` of inputs whose logits and features are known; `score` also checks the inputs."""
        return self._score(model, inputs, self._learned_like(inputs.x))

    def check_usable(self, model: Classifier, x: Tensor) -> None:
        """Raise an error unless the detector was fitted to this model and to inputs of this size; see `score`."""
        about = self.fitted()
        domain_of(model).require_images(self.name)
        if tuple(x.shape[1:]) != about.shape:
            fitted, given = (" x ".join(map(str, shape)) for shape in (about.shape, x.shape[1:]))
            raise DataError(f"{self.name} was fitted to images of {fitted}, got {given}")
        mark = model_fingerprint(model)
        if mark != about.model:
            raise ModelError(
                f"{self.name} was fitted for the model with fingerprint {about.model[:12]}, not this one, {mark[:12]}; "
                "fit it for this model"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector as a safetensors file, with its name, options and facts in the metadata.

        Raises:
            NotFitted: `fit` has not been called. InputError: an option is a function, which no file can hold, or
                the path is none.
        """
        from underfire.detectors.files import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a fitted detector of this class from a file that `save` wrote.

        Raises:
            InputError: there is no such file, or it is damaged, of another version or of another detector.
        """
        from underfire.detectors.files import load

        found = load(path)
        if not isinstance(found, cls):
            raise InputError(f"{str(path)!r} holds a {type(found).__name__}, not a {cls.__name__}")
        return found

    # --- what a subclass defines -------------------------------------------------------------------------------------

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        """Return the layers that the detector reads in every pass; `x` are the first clean inputs."""
        return ()

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        """Return the tensors that the scores need; gradients are off, and the model is in evaluation mode."""
        raise NotImplementedError

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        """Return the scores `[B]`; the inputs have no labels."""
        raise NotImplementedError

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the name of the detector in the catalogue, or of its class."""
        card = card_of(type(self))
        return card.name if card else type(self).__name__

    @property
    def supervised(self) -> bool:
        """Return whether a fit needs attacked inputs."""
        card = card_of(type(self))
        return bool(card and card.facts.supervised)

    @property
    def differentiable(self) -> bool:
        """Return whether gradients flow from the score to the input."""
        card = card_of(type(self))
        return bool(card and card.facts.differentiable)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that the detector was made with, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def fitted(self) -> Fit:
        """Return the facts of the fit, or raise NotFitted."""
        if self.learned is None or self.about is None:
            raise NotFitted(f"{self.name} has not been fitted to clean inputs; call fit(model, clean) first")
        return self.about

    def _learned_like(self, x: Tensor) -> dict[str, Tensor]:
        """Return the learned tensors on the device of `x`, those of floating point in its dtype."""
        learned = self.learned or {}
        return {k: v.to(x) if v.is_floating_point() else v.to(x.device) for k, v in learned.items()}


def in_chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Split inputs into parts that a detector can pass to the model at once while it learns."""
    return x.split(_CHUNK)
