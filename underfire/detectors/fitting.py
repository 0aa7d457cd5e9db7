"""Fit several detectors from one pass over the data, and score with several from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from underfire.catalog import DetectorFacts
from underfire.catalog.calls import with_checks
from underfire.detectors.calibration import unseen
from underfire.detectors.detector import Detector, Fit
from underfire.detectors.evaluated import Choice, Evaluated, evaluate, evaluate_for
from underfire.domains import domain_of
from underfire.errors import DataError, InputError, ModelError, shown
from underfire.hooks import frozen
from underfire.learning import model_fingerprint
from underfire.model import Classifier
from underfire.records import Batch


def fit_together(detectors: Sequence[Any], model: Classifier, clean: Batch, attacked: Batch | None = None) -> None:
    """Fit detectors to checked inputs, see `fit_all`."""
    own = [detector for detector in detectors if isinstance(detector, Detector)]
    for detector in own:
        domain_of(model).require_images(detector.name)
        if len(clean) < detector.least:
            raise DataError(f"{detector.name} needs at least {detector.least} clean inputs, got {len(clean)}")
        if detector.supervised and (attacked is None or not len(attacked)):
            raise DataError(f"{detector.name} learns from attacked inputs too; call fit(model, clean, attacked)")
    with torch.no_grad(), frozen(model):
        # one pass over the clean inputs, and one over the attacked ones if a detector learns from them
        wanted = [
            Choice(d._probes(model, clean.x[:1]), correct=True if d.labelled else None, most=d.most_per_class)
            for d in own
        ]
        usual = evaluate_for(model, clean, wanted) if own else []
        # an attack has no success on an input that the model misclassifies unchanged
        wrong, useless = frozenset(name for _, dropped in usual for name in dropped), 0
        if attacked is not None:
            attacked, useless = unseen(attacked, attacked.ids, wrong)
        theirs = [
            Choice(choice.probes, correct=False if d.labelled else None)
            for d, choice in zip(own, wanted, strict=True)
            if d.supervised
        ]
        moved = iter(evaluate_for(model, attacked, theirs) if attacked is not None and theirs else [])
        for detector, choice, (known, dropped) in zip(own, wanted, usual, strict=True):
            _check_counts(detector, model, known)
            suspicious, unsuccessful = next(moved) if detector.supervised else (None, ())
            if suspicious is not None and not len(suspicious):
                raise DataError(
                    f"{detector.name} learns from successful attacks, and there is none: the model classifies "
                    f"{len(unsuccessful)} attacked inputs as labelled, and misclassifies {useless} unchanged"
                )
            learned = detector._learn(model, known, suspicious)
            if not all(bool(torch.isfinite(value).all()) for value in learned.values()):
                raise ModelError(f"{detector.name} learned a number that is not finite")
            shape, mark = tuple(clean.x.shape[1:]), model_fingerprint(model)
            detector.learned = learned
            failed = len(unsuccessful) + useless if detector.supervised else 0
            detector.about = Fit(known.logits.shape[1], shape, mark, choice.probes, len(dropped), failed)
    for detector in detectors:
        if not isinstance(detector, Detector):
            detector.fit(model, clean, attacked)


def fit_all(detectors: Sequence[Any], model: Any, clean: Batch, attacked: Batch | None = None) -> None:
    """Fit several detectors from one pass over the data: the layers that they read are read together.

    A detector that evaluates changed inputs, such as squeezed ones, makes further passes of its own. Detectors that do
    not extend `Detector` are fitted one by one.

    Args:
        detectors: objects with a method `fit`.
        model: the classifier; it is not changed.
        clean: clean inputs.
        attacked: inputs that were attacked, with the labels of the clean ones; only supervised detectors learn from
            them.

    Raises:
        InputError: an entry is not a detector. DataError: the inputs do not fit the model, or are too few for a
            detector. ModelError: the output of the model or a learned number is not finite.
    """
    for detector in detectors:
        if not callable(getattr(detector, "fit", None)):
            raise InputError(f"fit_all takes a list of detectors, and {shown(detector)} has no method fit")
    _checked_fit(list(detectors), model, clean, attacked)


_checked_fit = with_checks("fit", fit_together, DetectorFacts())


def score_all(detectors: Sequence[Detector], model: Any, x: Tensor) -> list[Tensor]:
    """Return the scores `[B]` of several fitted detectors; those that read layers share one forward pass.

    Raises:
        NotFitted, DataError, ModelError: as `Detector.score`.
    """
    return _checked_score(model, x, list(detectors))


def _score_together(model: Classifier, x: Tensor, detectors: Sequence[Detector]) -> list[Tensor]:
    for detector in detectors:
        detector.check_usable(model, x)
    if len(x) == 0:
        return [x.new_zeros(0) for _ in detectors]
    with frozen(model):
        probes = [probe for detector in detectors for probe in detector.fitted().probes]
        inputs: Evaluated = evaluate(model, x, probes)
        return [detector.score_evaluated(model, inputs) for detector in detectors]


_checked_score = with_checks("score", _score_together, DetectorFacts())


def _check_counts(detector: Detector, model: Classifier, known: Evaluated) -> None:
    """Raise DataError if there are too few clean inputs, in all or of a class."""
    if len(known) < detector.least:
        raise DataError(
            f"{detector.name} needs at least {detector.least} clean inputs that the model classifies as labelled, got "
            f"{len(known)}"
        )
    least = detector.least_per_class
    if not least:
        return
    assert known.y is not None
    counts = torch.bincount(known.y, minlength=known.logits.shape[1])
    few = (counts < least).nonzero().flatten().tolist()
    if few:
        others = f" (and {len(few) - 1} other classes have too few)" if len(few) > 1 else ""
        raise DataError(
            f"{detector.name} needs at least {least} clean inputs of every class that the model classifies as "
            f"labelled, got {int(counts[few[0]])} of class {model.name_of(few[0])!r}{others}"
        )
