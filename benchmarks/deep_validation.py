"""Time Deep Validation on MNIST: the fit of ten classes, six layers and 1,000 images of a class, and its score."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.svm import OneClassSVM

from benchmarks.setting import data_root, mnist, zoo
from benchmarks.timing import Row, clock, in_turn, ratio, spread
from underfire import data
from underfire.detectors import DeepValidation
from underfire.hooks import all_features

PER_CLASS = 1000
POOLINGS = ("mean", "mean_4")
"""The default, and that of the experiment `deep-validation-mnist`."""


def measure(n: int = 256, images: int = 12_000) -> dict[str, Any]:
    """Measure, for each pooling, the seconds of a fit, and the score of a batch beside the forward pass.

    The error is the largest difference from scikit-learn's decision function, for the images and the last layer, which
    has no space.
    """
    model, x = zoo("mnist_small_cnn", "trades"), mnist()[:n].x
    train = data.load(f"mnist:{data_root() / 'mnist'}?split=train")[:images]
    found: dict[str, Any] = {"images": n, "threads": torch.get_num_threads(), "poolings": {}}
    for pooling in POOLINGS:
        start = clock()
        detector = DeepValidation(per_class=PER_CLASS, pooling=pooling).fit(model, train)
        fit = clock() - start
        with torch.no_grad():
            scored = partial(detector.score, model, x)
            seconds = in_turn({"forward": lambda: model(x), "score": scored}, rounds=9)
        found["poolings"][pooling] = {
            "fit": fit,
            "dropped": detector.dropped,
            "seconds": seconds,
            "ratio": ratio(seconds["score"], seconds["forward"]),
        }
    assert detector.about is not None
    last = detector.layer_scores(model, x)[:, -1].double().numpy()
    error = float(np.abs(last + _by_scikit_learn(detector, model, train, x)).max())
    return found | {"layers": len(detector.about.probes), "error": error}


def _by_scikit_learn(detector: DeepValidation, model: Any, train: Any, x: torch.Tensor) -> np.ndarray:
    """Return the decision functions of scikit-learn's machines of the last layer, `[n]`."""
    assert detector.about is not None and detector.learned is not None
    probe, last = detector.about.probes[-1], len(detector.about.probes) - 1
    logits, known = all_features(model, train.x, [probe])
    right = logits.argmax(1) == train.y
    mean, std = detector.learned[f"{last}.mean"], detector.learned[f"{last}.std"]
    std = torch.where(std > 0, std, torch.ones_like(std))
    predictions, features = all_features(model, x, [probe])
    own, classes = ((features[probe] - mean) / std).double().numpy(), predictions.argmax(1).numpy()
    decided = np.zeros(len(x))
    for k in np.unique(classes):
        z = ((known[probe][right & (train.y == int(k))][:PER_CLASS] - mean) / std).double().numpy()
        machine = OneClassSVM(nu=detector.nu, gamma="scale").fit(z)
        decided[classes == k] = machine.decision_function(own[classes == k])
    return decided


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the time of the fit and the ratio for each pooling, and the error."""
    setting = f"Deep Validation, MNIST, 10 classes x {found['layers']} layers x {PER_CLASS:,} images"
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    measured = []
    for pooling, one in found["poolings"].items():
        fit = f"{one['fit']:.1f}, {threads}"
        measured.append((f"{setting}, pooling {pooling}: seconds of the fit", fit, "≤ 180 on 2 cores"))
        batch = f"{found['images']} MNIST images, pooling {pooling}"
        score = f"Deep Validation, {batch}: score, in forward passes of the network"
        measured.append((score, spread(one["ratio"]), "≤ 1.5"))
    error = f"Deep Validation, {found['images']} MNIST images: largest difference from scikit-learn's decisions"
    return [*measured, (error, f"{found['error']:.1e}", "≤ 1e-5")]
