"""Fit detectors that learn from attacked images to some attacks, and score all attacks with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from underfire.detectors import LID, MLLOO, Detector, KernelDensityAndUncertainty, Mahalanobis
from underfire.detectors.regression import fit_regression, log_odds
from underfire.hooks import choose_layers, frozen
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Progress

BLOCKS = "layer?.?"  # the nine blocks of ResNet-20
DROPOUT = 0.5
SAMPLES = 10  # passes of Bayesian uncertainty; the paper takes 50
ML_LOO = "ML-LOO"
_PART = 5  # images whose attributions are computed at once
_CHUNK = 100  # images that are scored at once

OTHERS: dict[str, Callable[[], Detector]] = {
    "LID": lambda: LID(layers=(BLOCKS, "logits")),
    "Mahalanobis": lambda: Mahalanobis(layers=BLOCKS, combine="logistic"),
    "KD+BU": lambda: KernelDensityAndUncertainty(samples=SAMPLES),
}
"""The detectors beside ML-LOO, not fitted."""


@dataclass(frozen=True)
class Images:
    """Clean images, and the successful attacks on them.

    Attributes:
        clean: the clean images.
        attacked: the successful attacks, which have the labels and the names of the clean images, by attack.
    """

    clean: Batch
    attacked: Mapping[str, Batch]


def with_dropout(model: Classifier) -> Classifier:
    """Return a copy of a network with dropout before its last layer, which Bayesian uncertainty needs.

    In evaluation mode, it computes what the network computes.
    """
    found = copy.deepcopy(model)
    module: Any = found.module
    module.linear = nn.Sequential(nn.Dropout(DROPOUT), module.linear)
    return found.eval()


def scores_of(
    model: Classifier, known: Batch, fit: Images, test: Images, store: Store, progress: Progress
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return the scores of all detectors, `[detector][attacks learned from][attack, or "clean"]`.

    Each detector learns from each attack alone (`NAME`) and from all others together (`not NAME`).

    Args:
        known: further clean images for the statistics of the detectors beside ML-LOO.
        fit: the images that all detectors learn from.
        test: the images that are scored.
    """
    lessons: dict[str, tuple[str, ...]] = {name: (name,) for name in fit.attacked}
    lessons |= {f"not {name}": tuple(other for other in fit.attacked if other != name) for name in fit.attacked}
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {ML_LOO: _ml_loo(model, fit, test, lessons, store, progress)}
    clean = Batch(torch.cat([fit.clean.x, known.x]), torch.cat([fit.clean.y, known.y]), fit.clean.ids + known.ids)
    models = {"KD+BU": with_dropout(model)}
    for name, make in OTHERS.items():
        for number, (lesson, attacks) in enumerate(lessons.items()):
            progress(number, len(lessons), f"{name}, {lesson}")
            lesson_images = together([fit.attacked[attack] for attack in attacks])
            compute = partial(_learned, make, models.get(name, model), clean, lesson_images, test)
            columns = store.tensors(f"{name}, {lesson}", compute)
            found.setdefault(name, {})[lesson] = {attack: column.numpy() for attack, column in columns.items()}
    return found


def _learned(
    make: Callable[[], Detector], model: Classifier, clean: Batch, attacked: Batch, test: Images
) -> dict[str, Tensor]:
    """Fit a new detector, and return its scores of the test images."""
    detector = make().fit(model, clean, attacked)
    return {
        attack: _scored(detector, model, batch.x) for attack, batch in {"clean": test.clean, **test.attacked}.items()
    }


def _ml_loo(
    model: Classifier,
    fit: Images,
    test: Images,
    lessons: Mapping[str, tuple[str, ...]],
    store: Store,
    progress: Progress,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the scores of ML-LOO; the dispersions of an image are computed once, whatever is learned from them."""
    detector = MLLOO(layers=BLOCKS)
    layers = choose_layers(model, test.clean.x[:1], BLOCKS)

    def dispersions(batch: Batch) -> Tensor:
        with torch.no_grad(), frozen(model):
            return detector.dispersions(model, batch.x, layers).cpu()

    features: dict[str, dict[str, Tensor]] = {}
    for part, images in (("fit", fit), ("test", test)):
        for attack, batch in {"clean": images.clean, **images.attacked}.items():
            found = store.in_parts(f"dispersions, {part}, {attack}", batch, _PART, dispersions, progress)
            features.setdefault(part, {})[attack] = found.double()
    scores: dict[str, dict[str, np.ndarray]] = {}
    for lesson, attacks in lessons.items():
        learned = fit_regression(features["fit"]["clean"], torch.cat([features["fit"][attack] for attack in attacks]))
        scores[lesson] = {name: log_odds(values, learned).numpy() for name, values in features["test"].items()}
    return scores


def together(batches: list[Batch]) -> Batch:
    """Return several batches as one."""
    ids = tuple(name for batch in batches for name in batch.ids)
    return Batch(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]), ids)


def _scored(detector: Detector, model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [detector.score(model, part).double().cpu() for part in x.split(_CHUNK)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
