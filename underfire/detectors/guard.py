"""A classifier with a detector in front of it: it returns a class, or refuses the input."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Self

import torch
from torch import Tensor, nn

from underfire.ascent.rows import likeliest_others
from underfire.detectors.calibration import Calibration
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import evaluate
from underfire.detectors.files import contents, load
from underfire.errors import InputError, ModelError, Unsupported, shown
from underfire.files import as_path
from underfire.learning import model_fingerprint, read_facts, write_tensors
from underfire.measures.detection import Threshold
from underfire.model import Classifier, as_classifier
from underfire.records import Interval
from underfire.validate import check_number

REFUSED = -1
"""The value that `decide` returns for a refused input."""

_VERSION = 1
_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"), 0)


class _Guarded(nn.Module):
    """The network of a guard: the logits of the classifier, and after them the logit of "refused"."""

    def __init__(self, classifier: Classifier, detector: Detector, threshold: float, scale: float) -> None:
        super().__init__()
        self.classifier, self.detector, self.threshold, self.scale = classifier, detector, threshold, scale

    def forward(self, x: Tensor) -> Tensor:
        # the detector reads the same pass
        inputs = evaluate(self.classifier, x, self.detector.fitted().probes)
        score = self.detector.score_evaluated(self.classifier, inputs)
        if x.requires_grad and torch.is_grad_enabled() and not score.requires_grad:
            raise Unsupported(
                f"the score of {self.detector.name} has no gradient, so that no attack can lower it along one; use a "
                "black-box attack"
            )
        refused = inputs.logits.amax(1) + (score - self.threshold) / self.scale
        return torch.cat([inputs.logits, refused[:, None]], 1)


class Guard(Classifier):
    """A classifier that refuses an input whose score is above the threshold.

    Its `K + 1` logits are those of the classifier and, as the last one, that of "refused": the largest logit plus
    `(score - threshold) / scale`, which is the largest of all if and only if the score is above the threshold (as in
    Carlini and Wagner, Adversarial Examples Are Not Easily Detected, AISec 2017). Every attack can therefore use a
    guard as its model, and one that follows a gradient knows the detector. An attack with a `goal` finds inputs that
    are accepted as that class. For an attack without one, a refusal is a wrong class like any other, so count only
    what `decide` accepts, or take `likeliest_wrong` as the goal.

    Args:
        model: the classifier that the detector was fitted to.
        detector: a fitted detector.
        threshold: what `measures.detection.threshold` returns for clean inputs that the detector was not fitted to; or
            a number.
        scale: the difference of scores that weighs as much as one logit; None is the standard deviation of the clean
            scores of the calibration, or 1 without one.
        calibration: the clean scores that the threshold was chosen from, and which images were used; None if unknown.

    Raises:
        NotFitted: the detector is not fitted. ModelError: it was fitted to another model. InputError: the threshold or
            the scale is not a number, or the scale not positive.
    """

    module: _Guarded

    def __init__(
        self,
        model: nn.Module,
        detector: Detector,
        threshold: Threshold | float,
        *,
        scale: float | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if not isinstance(detector, Detector):
            raise InputError(f"a guard needs a detector that extends Detector, got {shown(detector)}")
        at = threshold if isinstance(threshold, Threshold) else Threshold(threshold, _UNKNOWN)
        scale = _spread(calibration) if scale is None else scale
        check_number(threshold=at.value, scale=scale)
        if not scale > 0:
            raise InputError(f"scale must be > 0, got {scale}")
        about, inner = detector.fitted(), as_classifier(model)
        if (mark := model_fingerprint(inner)) != about.model:
            theirs = f"the model with fingerprint {about.model[:12]}"
            raise ModelError(f"{detector.name} was fitted for {theirs}, not for this one, {mark[:12]}")
        names = None if inner.labels is None else [*inner.labels, "refused"]
        body = _Guarded(inner, detector, float(at.value), float(scale))
        super().__init__(body, labels=names, domain=inner.domain, output="logits", size=inner.size)
        self.threshold, self.calibration = at, calibration

    @property
    def undefended(self) -> Classifier:
        """Return the classifier behind the guard."""
        return self.module.classifier

    @property
    def detector(self) -> Detector:
        """Return the detector."""
        return self.module.detector

    def decide(self, x: Tensor, *, chunk: int = 256) -> Tensor:
        """Return the class of every input, int64 `[B]`, or -1 where the guard refuses it.

        Raises:
            DataError: the inputs have another size than those of the fit. ModelError: the output of the model is not
                finite.
        """
        self.detector.check_usable(self.undefended, x)
        chosen = self.predict(x, chunk=chunk).argmax(1) if len(x) else torch.zeros(0, dtype=torch.int64)
        return torch.where(chosen == self._refused, REFUSED, chosen)

    def likeliest_wrong(self, x: Tensor, y: Tensor, *, chunk: int = 256) -> Tensor:
        """Return for every input the class that the classifier finds likeliest after `y`, int64 `[B]`, as a goal."""
        return likeliest_others(self.undefended.predict(x, chunk=chunk), y, 1)[:, 0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the guard as a safetensors file, in which the model is named by its fingerprint alone.

        `detectors.load` reads the detector of the file.

        Raises:
            InputError: an option of the detector is a function, which no file can hold, or the path is none.
        """
        tensors, facts = contents(self.detector)
        at = {"value": self.threshold.value, "rate": asdict(self.threshold.rate)}
        guard = {"version": _VERSION, "threshold": at, "scale": self.module.scale}
        if self.calibration is not None:
            guard["calibration"] = self.calibration.as_dict()
        write_tensors(as_path(path), tensors, {**facts, "guard": json.dumps(guard)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: nn.Module) -> Self:
        """Read a guard that `save` wrote, for the model that its detector was fitted to; nothing is unpickled.

        Raises:
            InputError: there is no such file, or it is damaged, of another version or not of a guard. ModelError: the
                detector was fitted to another model.
        """
        place = as_path(path)
        detector, text = load(place), read_facts(place).get("guard")
        if text is None:
            raise InputError(f"{str(path)!r} holds a detector without a threshold; make a Guard and save that")
        try:
            guard = json.loads(text)
            if guard["version"] != _VERSION:
                raise InputError(f"{str(path)!r} has a guard of version {shown(guard['version'])}, not {_VERSION}")
            at, scale = guard["threshold"], float(guard["scale"])
            threshold = Threshold(float(at["value"]), Interval(**at["rate"]))
            calibration = Calibration.from_dict(guard["calibration"]) if "calibration" in guard else None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{str(path)!r} cannot be read as a guard: {error!r}".splitlines()[0]) from None
        return cls(model, detector, threshold, scale=scale, calibration=calibration)

    @property
    def _refused(self) -> int:
        return self.detector.fitted().classes


def _spread(calibration: Calibration | None) -> float:
    """Return the standard deviation of the scores of a calibration; 1 if it is unknown or 0."""
    scores = torch.tensor(calibration.scores if calibration else (), dtype=torch.float64)
    return float(scores.std(correction=0)) or 1.0 if len(scores) else 1.0
