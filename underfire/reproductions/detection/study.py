"""Fit Deep Validation and two older detectors, synthesise corner cases, and score both them and clean images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from underfire import data
from underfire.attacks.corner_cases import Strength, synthesise, transformations
from underfire.detectors import Detector
from underfire.learning import model_fingerprint
from underfire.measures.detection import auroc
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.detection.corner_case_detectors import (
    DENSITY_OWN,
    JOINT,
    NU,
    Scores,
    fitted,
    score_columns,
    unfitted,
)
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Setting


@dataclass(frozen=True)
class Sizes:
    """The numbers of images: training images for the fits, and test images, each of which has one use.

    Attributes:
        fit: training images; those that the model misclassifies are dropped.
        searched: test images on which the strengths of the transformations are searched.
        changed: test images that become corner cases.
        clean: test images that stay as they are, the negatives.
        strengths: number of strengths that are tried.
    """

    fit: int
    searched: int
    changed: int
    clean: int
    strengths: int


@dataclass(frozen=True)
class Study:
    """The network, the data and the detectors of an experiment.

    Attributes:
        network: returns the classifier.
        train: the URI of the training images, with `{root}` for the folder of the data.
        test: the URI of the test images.
        transformations: those that `corner_cases` takes; their ranges keep the label.
        layers: the layers of Deep Validation; kernel density has the last one.
        pooling: how the feature maps of Deep Validation are pooled.
        named: the name of the data for the squeezers and the bandwidth of the papers.
        sizes: the numbers of images, by the scale of a run.
        per_class: the largest number of images of a class that a detector learns from.
        error_rate: the share of the images that the model must get wrong after a transformation.
    """

    network: Callable[[Setting], Classifier]
    train: str
    test: str
    transformations: tuple[str, ...]
    layers: str | tuple[str, ...]
    pooling: str
    named: str
    sizes: Mapping[str, Sizes]
    per_class: int = 1000
    error_rate: float = 0.6

    def spec(self, setting: Setting) -> dict[str, Any]:
        """Return everything that determines the numbers."""
        return {
            "train": self.train.format(root=setting.root),
            "test": self.test.format(root=setting.root),
            "images": vars(self.sizes[setting.scale]),
            "transformations": list(self.transformations),
            "error_rate": self.error_rate,
            "deep_validation": {"layers": self.layers, "pooling": self.pooling, "nu": NU, "per_class": self.per_class},
            "feature_squeezing": {"squeezers": self.named},
            "kernel_density": {"bandwidth": self.named, "per_class": self.per_class},
            "seed": setting.seed,
        }

    def store(self, setting: Setting, model: Classifier) -> Store:
        """Return the folder of the fitted detectors and of the scores."""
        facts: dict[str, Any] = {
            "uris": [self.train, self.test],
            "sizes": vars(self.sizes[setting.scale]),
            "layers": self.layers,
        }
        facts |= {"pooling": self.pooling, "named": self.named, "per_class": self.per_class}
        return Store.of(setting, f"detection-{self.named}", facts | {"model": model_fingerprint(model)})

    def detectors(self, setting: Setting, model: Classifier) -> dict[str, Detector]:
        """Return the detectors, fitted to training images; those of an earlier run are read from the work folder."""
        found = unfitted(self.layers, self.pooling, self.named, self.per_class)

        def known() -> Batch:
            n = self.sizes[setting.scale].fit
            return data.load(self.train.format(root=setting.root), n=n, seed=setting.seed)[:].to(setting.device)

        return fitted(found, model, known, self.store(setting, model), setting.progress)

    def clean_scores(self, setting: Setting, model: Classifier, detectors: Mapping[str, Detector]) -> Scores:
        """Return the scores of the clean test images."""
        setting.progress(0, 1, "scoring clean images")
        clean = self.test_images(setting)[2]
        store = self.store(setting, model)
        columns = store.tensors("clean", lambda: score_columns(model, detectors, clean.x))
        return {name: column.numpy() for name, column in columns.items()}

    def test_images(self, setting: Setting) -> tuple[Batch, Batch, Batch]:
        """Return the test images that are searched on, that are changed, and that stay clean; no image is in two."""
        sizes = self.sizes[setting.scale]
        counts = [sizes.searched, sizes.changed, sizes.clean]
        drawn = data.load(self.test.format(root=setting.root), n=sum(counts), seed=setting.seed)[:].to(setting.device)
        order = torch.randperm(sum(counts), generator=Generator().manual_seed(setting.seed))
        searched, changed, clean = (drawn.take(part) for part in order.split(counts))
        return searched, changed, clean


@dataclass(frozen=True)
class Measured:
    """The scores of clean images and of corner cases.

    Attributes:
        strengths: the result of the search for each transformation.
        clean: the scores of the clean images.
        successful: the scores of the corner cases that the model gets wrong, by transformation.
        failed: the scores of those that it gets right, by transformation.
        layers: the names of the validated layers.
        facts: the numbers of images and the accuracy.
    """

    strengths: tuple[Strength, ...]
    clean: Scores
    successful: dict[str, Scores]
    failed: dict[str, Scores]
    layers: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def area(self, name: str, cases: Mapping[str, Scores], transformation: str | None = None) -> Interval:
        """Return the ROC-AUC of a detector on one transformation, or overall; the corner cases are positive."""
        chosen = cases.values() if transformation is None else [cases[transformation]]
        return auroc(self.clean[name], np.concatenate([np.empty(0), *(scores[name] for scores in chosen)]))


def measure(study: Study, setting: Setting) -> Measured:
    """Fit the detectors to training images, and score corner cases and clean images from disjoint test images.

    Every fitted detector and the scores of every transformation are kept in the work folder.
    """
    sizes, model = study.sizes[setting.scale], study.network(setting)
    detectors, store = study.detectors(setting, model), study.store(setting, model)
    searched, changed, clean = study.test_images(setting)
    usual = study.clean_scores(setting, model, detectors)
    total = len(study.transformations) + 1
    # synthesise the corner cases of each transformation, and score them
    strengths: list[Strength] = []
    scores: dict[str, dict[str, Scores]] = {"successful": {}, "failed": {}}
    for number, name in enumerate(study.transformations, 1):
        setting.progress(number, total, f"corner cases: {name}")

        def compute(name: str = name) -> tuple[dict[str, Tensor], Any]:
            share, strengths = study.error_rate, sizes.strengths
            (found,) = synthesise(model, changed, (name,), searched=searched, error_rate=share, strengths=strengths)
            both = {"successful": found.successful.x, "failed": found.failed.x}
            columns = {kind: score_columns(model, detectors, x) for kind, x in both.items()}
            return {f"{k}/{key}": v for k, of in columns.items() for key, v in of.items()}, _plain(found.strength)

        columns, plain = store.record(f"{name} at {study.error_rate:g}", compute)
        strengths.append(_strength(name, plain))
        if strengths[-1].value is not None:
            for key, column in columns.items():
                kind, _, detector = key.partition("/")
                scores[kind].setdefault(name, {})[detector] = column.numpy()
    setting.progress(total, total, "scored")
    return Measured(
        tuple(strengths),
        usual,
        scores["successful"],
        scores["failed"],
        tuple(probe.layer for probe in detectors[JOINT].fitted().probes),
        _facts(model, detectors, clean, sizes.fit),
    )


def _plain(strength: Strength) -> dict[str, Any]:
    """Return a strength as plain values."""
    return {"value": strength.value, "errors": [[at, asdict(share)] for at, share in strength.errors.items()]}


def _strength(name: str, plain: Mapping[str, Any]) -> Strength:
    """Return the strength of plain values."""
    (transformation,), value = transformations((name,)), plain["value"]
    words = "" if value is None else transformation.at(value)
    return Strength(transformation, value, words, {at: Interval(**share) for at, share in plain["errors"]})


def _facts(model: Classifier, detectors: Mapping[str, Detector], clean: Batch, fit: int) -> dict[str, Any]:
    """Return the accuracy, the numbers of images, and the likeliest bandwidth."""
    right = model.predict(clean.x).argmax(1) == clean.y
    dropped, learned = detectors[JOINT].dropped, detectors[DENSITY_OWN].learned or {}
    facts = {"accuracy": rate(right.cpu()), "fitted": fit - dropped, "dropped": dropped, "clean": len(clean)}
    return facts | {"bandwidth, likeliest": float(learned["bandwidth"])}
