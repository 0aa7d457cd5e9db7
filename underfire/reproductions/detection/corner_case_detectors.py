"""Fit Deep Validation in several forms, feature squeezing and kernel density, and score images with all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underfire.detectors import DeepValidation, Detector, FeatureSqueezing, KernelDensity, fit_all, score_all
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.registry import Progress

NUS = (0.01, 0.05, 0.1, 0.2)
NU = 0.1
"""The values of ν that are compared, and the one of the tables; the paper does not state its own."""
JOINT, SQUEEZING, DENSITY = f"joint, nu {NU:g}", "feature squeezing", "density, paper's bandwidth"
DENSITY_OWN = "density, own"
_CHUNK = 200  # images that are scored at once
_SQUEEZED = 20  # clean images that feature squeezing is fitted to: its score uses nothing that it learns

Scores = dict[str, np.ndarray]
"""The scores of several detectors by name, each `[n]`."""


def unfitted(layers: str | tuple[str, ...], pooling: str, named: str, per_class: int) -> dict[str, Detector]:
    """Return the detectors by name; feature squeezing learns nothing from images but their scores.

    Args:
        layers: the layers of Deep Validation; kernel density has the last one.
        pooling: how the feature maps of Deep Validation are pooled.
        named: the name of the data for the squeezers and the bandwidth of the papers.
        per_class: the largest number of images of a class that a detector learns from.
    """
    same: dict[str, Any] = {"layers": layers, "per_class": per_class}
    found: dict[str, Detector] = {}
    for nu in (NU, *NUS):  # that of the tables first
        found.setdefault(f"joint, nu {nu:g}", DeepValidation(**same, pooling=pooling, nu=nu))
    found["joint, calibrated"] = DeepValidation(**same, pooling=pooling, nu=NU, mode="calibrated")
    found[DENSITY] = KernelDensity(**same, bandwidth=named)
    found[DENSITY_OWN] = KernelDensity(**same)
    found[SQUEEZING] = FeatureSqueezing(squeezers=named)
    return found


def fitted(
    detectors: Mapping[str, Detector],
    model: Classifier,
    known: Callable[[], Batch],
    store: Store,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Detector]:
    """Return fitted detectors, each read from its file in the store if it has one; the others share one pass.

    Args:
        known: returns the training images; it is called only if a detector has no file.
    """
    missing = {name: detector for name, detector in detectors.items() if not store.has(name)}
    if missing:
        progress(0, 1, f"fitting: {', '.join(missing)}")
        batch = known()
        few = batch.take(torch.arange(min(_SQUEEZED, len(batch))))
        fit_all([detector for detector in missing.values() if not isinstance(detector, FeatureSqueezing)], model, batch)
        for detector in missing.values():
            if isinstance(detector, FeatureSqueezing):
                detector.fit(model, few)
    return {name: store.detector(name, partial(missing.get, name)) for name in detectors}  # type: ignore[arg-type]


def scored(model: Classifier, detectors: Mapping[str, Any], x: Tensor) -> Scores:
    """Return the scores of images by every detector, and of the single validators as `layer 1`, `layer 2` and so on."""
    return {name: column.numpy() for name, column in score_columns(model, detectors, x).items()}


def score_columns(model: Classifier, detectors: Mapping[str, Any], x: Tensor) -> dict[str, Tensor]:
    """Return what `scored` returns, as float64 tensors on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    main = detectors[JOINT]
    with torch.no_grad():
        for chunk in x.split(_CHUNK) if len(x) else [x]:
            columns = dict(zip(detectors, score_all(list(detectors.values()), model, chunk), strict=True))
            single = main.layer_scores(model, chunk) if len(chunk) else chunk.new_zeros(0, len(main.fitted().probes))
            columns |= {f"layer {number}": column for number, column in enumerate(single.T, 1)}
            for name, column in columns.items():
                parts.setdefault(name, []).append(column)
    return {name: torch.cat(columns).double().cpu() for name, columns in parts.items()}
