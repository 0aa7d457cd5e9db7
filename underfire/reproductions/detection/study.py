"""Fit Deep Validation and two older detectors, synthesise corner cases, and score both them and clean images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from underfire import data
from underfire.attacks.corner_cases import CornerCases, synthesise
from underfire.detectors import DeepValidation, FeatureSqueezing, KernelDensity, fit_all, score_all
from underfire.measures.detection import auroc
from underfire.model import Classifier
from underfire.records import Batch, Interval
from underfire.reproductions.registry import Setting

NUS = (0.01, 0.05, 0.1, 0.2)
NU = 0.1
"""The values of ν that are compared, and the one of the tables; the paper does not state its own."""
ERROR_RATE = 0.6
_CHUNK = 200  # images that are scored at once
_SQUEEZED = 20  # clean images that feature squeezing is fitted to: its score uses nothing that it learns

Scores = dict[str, np.ndarray]
"""The scores of several detectors by name, each `[n]`."""


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

    def spec(self, setting: Setting) -> dict[str, Any]:
        """Return everything that determines the numbers."""
        return {
            "train": self.train.format(root=setting.root),
            "test": self.test.format(root=setting.root),
            "images": vars(self.sizes[setting.scale]),
            "transformations": list(self.transformations),
            "error_rate": ERROR_RATE,
            "deep_validation": {"layers": self.layers, "pooling": self.pooling, "nu": NU, "per_class": self.per_class},
            "feature_squeezing": {"squeezers": self.named},
            "kernel_density": {"bandwidth": self.named, "per_class": self.per_class},
            "seed": setting.seed,
        }


@dataclass(frozen=True)
class Measured:
    """The scores of clean images and of corner cases.

    Attributes:
        cases: the corner cases, one entry for each transformation.
        clean: the scores of the clean images.
        successful: the scores of the corner cases that the model gets wrong, by transformation.
        failed: the scores of those that it gets right, by transformation.
        layers: the names of the validated layers.
        facts: the numbers of images and the accuracy.
    """

    cases: tuple[CornerCases, ...]
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
    """Fit the detectors to training images, and score corner cases and clean images from disjoint test images."""
    sizes, model = study.sizes[setting.scale], study.network(setting)
    root, steps = str(setting.root), 3 + len(study.transformations)
    # draw the images: every test image has one use
    setting.progress(0, steps, "fitting the detectors")
    known = data.load(study.train.format(root=root), n=sizes.fit, seed=setting.seed)[:].to(setting.device)
    total = sizes.searched + sizes.changed + sizes.clean
    drawn = data.load(study.test.format(root=root), n=total, seed=setting.seed)[:].to(setting.device)
    order = torch.randperm(total, generator=Generator().manual_seed(setting.seed))
    searched, changed, clean = (drawn.take(part) for part in order.split([sizes.searched, sizes.changed, sizes.clean]))
    right = torch.cat([model.predict(x).argmax(1) for x in clean.x.split(_CHUNK)]) == clean.y
    detectors = fitted(study, model, known)
    # synthesise the corner cases of each transformation, and score them
    cases: list[CornerCases] = []
    successful, failed = dict[str, Scores](), dict[str, Scores]()
    for number, name in enumerate(study.transformations):
        setting.progress(1 + number, steps, f"corner cases: {name}")
        (found,) = synthesise(
            model, changed, (name,), searched=searched, error_rate=ERROR_RATE, strengths=sizes.strengths
        )
        cases.append(found)
        if found.strength.value is not None:
            successful[name] = scored(model, detectors, found.successful.x)
            failed[name] = scored(model, detectors, found.failed.x)
    setting.progress(1 + len(study.transformations), steps, "scoring clean images")
    main = detectors[f"joint, nu {NU:g}"]
    assert isinstance(main, DeepValidation)
    facts = {"accuracy": float(right.float().mean()), "fitted": len(known) - main.dropped, "dropped": main.dropped}
    facts |= {"clean": len(clean), "bandwidth, likeliest": float(_learned(detectors["density, own"], "bandwidth"))}
    layers = tuple(probe.layer for probe in main.fitted().probes)
    return Measured(tuple(cases), scored(model, detectors, clean.x), successful, failed, layers, facts)


def fitted(study: Study, model: Classifier, known: Batch) -> dict[str, Any]:
    """Return the detectors by name, all of which learn from one pass but feature squeezing, which learns nothing."""
    same: dict[str, Any] = {"layers": study.layers, "per_class": study.per_class}
    found: dict[str, Any] = {f"joint, nu {nu:g}": DeepValidation(**same, pooling=study.pooling, nu=nu) for nu in NUS}
    found["joint, calibrated"] = DeepValidation(**same, pooling=study.pooling, nu=NU, mode="calibrated")
    found["density, paper's bandwidth"] = KernelDensity(**same, bandwidth=study.named)
    found["density, own"] = KernelDensity(**same)
    fit_all(list(found.values()), model, known)
    squeezing = FeatureSqueezing(squeezers=study.named)
    squeezing.fit(model, known.take(torch.arange(min(_SQUEEZED, len(known)))))
    return found | {"feature squeezing": squeezing}


def scored(model: Classifier, detectors: Mapping[str, Any], x: Tensor) -> Scores:
    """Return the scores of images by every detector, and of the single validators as `layer 1`, `layer 2` and so on."""
    parts: dict[str, list[Tensor]] = {}
    main = detectors[f"joint, nu {NU:g}"]
    with torch.no_grad():
        for chunk in x.split(_CHUNK) if len(x) else [x]:
            columns = dict(zip(detectors, score_all(list(detectors.values()), model, chunk), strict=True))
            single = main.layer_scores(model, chunk) if len(chunk) else chunk.new_zeros(0, len(main.fitted().probes))
            columns |= {f"layer {number}": column for number, column in enumerate(single.T, 1)}
            for name, column in columns.items():
                parts.setdefault(name, []).append(column)
    return {name: torch.cat(columns).double().cpu().numpy() for name, columns in parts.items()}


def _learned(detector: Any, name: str) -> Tensor:
    value: Tensor = detector.learned[name]
    return value
