"""The models of the gallery, and the images on which attacks are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.interpreter_gallery import square
from underfire import data, models
from underfire.measures import prediction
from underfire.model import Classifier

BATCH = 16  # images of a subject; a universal perturbation is made from all of them
SIDE = 160  # pixels of a photograph; both networks classify it as well as at 224


@dataclass(frozen=True)
class Subject:
    """A model, and images `x` with labels `y` that it classifies correctly."""

    name: str
    model: Classifier
    x: Tensor
    y: Tensor


def subjects(root: Path | None, seed: int) -> dict[str, Callable[[], Subject]]:
    """Return a function by the name of each subject, which makes the subject when it is first called."""
    found: dict[str, Callable[[], Subject]] = {
        "digits": lambda: _right(
            "a digit among others", models.load("zoo:cluttered_digits"), "cluttered-digits:", seed
        ),
        "tree": lambda: _right("a digit, 8 x 8 pixels", _tree(seed), "digits:", seed),
    }
    if root is not None:
        first, second = (
            f"{root / 'weights' / name}.safetensors?arch={name}"
            for name in ("mobilenet_v1_075_imagenet", "mobilenet_v2_imagenet")
        )
        found["photographs"] = lambda: _photographs("a photograph", models.load(first))
        found["residual"] = lambda: _photographs("a photograph for a residual network", models.load(second))
        found["ensemble"] = lambda: _photographs("a photograph for two networks", models.ensemble([first, second]))
    return {name: cache(make) for name, make in found.items()}


def _right(name: str, model: Classifier, uri: str, seed: int) -> Subject:
    """Return the subject with correctly classified images on which the model's confidence is above the median."""
    batch = data.load(uri, n=4 * BATCH, seed=seed)[:]
    logits = model.predict(batch.x, chunk=BATCH)
    confidence = prediction.confidence(logits, batch.y) * (logits.argmax(1) == batch.y)
    rows = ((confidence > 0) & (confidence >= confidence.median())).nonzero().squeeze(1)[:BATCH]
    return Subject(name, model, batch.x[rows], batch.y[rows])


def _photographs(name: str, model: Classifier) -> Subject:
    """Return the cup of coffee and the cat of scikit-image; their labels are the classes that the model predicts."""
    from skimage.data import chelsea, coffee

    x = torch.cat([square(torch.from_numpy(picture)) for picture in (coffee(), chelsea())])
    x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)
    return Subject(name, model, x, model.predict(x).argmax(1))


def _tree(seed: int) -> Classifier:
    """Return a decision tree, trained on the digits of scikit-learn."""
    from sklearn.tree import DecisionTreeClassifier

    batch = data.load("digits:train")[:]
    tree = DecisionTreeClassifier(max_depth=10, random_state=seed).fit(batch.x.flatten(1).numpy(), batch.y.numpy())
    return models.from_sklearn(tree, tuple(batch.x.shape[1:]))
