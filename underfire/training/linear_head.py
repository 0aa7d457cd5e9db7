"""Train a classifier from few images: fit a linear head to the features of a frozen network (linear probing).

Source: Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underfire.data import Dataset
from underfire.errors import DataError
from underfire.hooks import frozen
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.models.heads import last_linear, with_classes
from underfire.records import Interval
from underfire.validate import at_least

_BATCH = 16  # images in one pass
_STRENGTHS = 10  # how many values of the inverse regularisation are compared, from 1e-4 to 1e4


@dataclass(frozen=True)
class LinearHead:
    """A network with a new head, and the accuracy of the head on images that it was not fitted to.

    Attributes:
        classifier: the frozen network with the head for the classes of the data.
        accuracy: the cross-validated accuracy, with its 95 % interval.
        balanced_accuracy: the mean of the cross-validated accuracies of the classes.
        majority: the share of the most frequent class: the accuracy of always predicting this class.
    """

    classifier: Classifier
    accuracy: Interval
    balanced_accuracy: float
    majority: float


def linear_head(
    model: Classifier,
    data: Dataset,
    *,
    folds: int = 5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LinearHead:
    """Replace the head of a network by a logistic regression on its features, and return the new classifier.

    The features are the inputs of the last linear layer. The regression reads standardised features; the weights of the
    new head include the standardisation. All classes have the same weight. An inner cross-validation chooses the
    strength of the regularisation from the training images alone, so that the outer cross-validation measures the
    accuracy of the whole procedure on new images.

    Args:
        model: the network; it is not changed.
        data: images of at least two classes. Each class needs enough images that `folds - 1` of its `folds` parts
            together have at least `folds` images: 7 images for 5 folds.
        folds: number of parts of the cross-validation, at least 2.
        seed: the seed of the split.
        progress: a function of the number of images that have passed the network and of the number of all images.

    Raises:
        ModelError: the network does not end in a linear layer. DataError: the data has too few images of a class.
        InputError: there are fewer than two folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    at_least(2, folds=folds)
    features, y = _features(model, data, progress)
    present, counts = np.unique(y, return_counts=True)
    classes = len(data.labels) if data.labels else int(y.max()) + 1
    # without the largest of its parts, a class must still have an image for every inner part
    needed = next(count for count in range(folds, 2 * folds + 1) if count - math.ceil(count / folds) >= folds)
    if len(present) < max(2, classes) or counts.min() < needed:
        raise DataError(
            f"a head needs at least {needed} images of each of 2 or more classes for {folds} folds, the data has "
            f"{dict(zip(present.tolist(), counts.tolist(), strict=True))}"
        )
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    regression = LogisticRegression(class_weight="balanced", max_iter=2000)
    strengths = {"logisticregression__C": np.logspace(-4, 4, _STRENGTHS)}
    procedure = GridSearchCV(make_pipeline(StandardScaler(), regression), strengths, cv=split)
    # the accuracy on images that were left out
    right = cross_val_predict(procedure, features, y, cv=split) == y
    # the head, fitted to all images
    procedure.fit(features, y)
    scaler, fitted = procedure.best_estimator_[0], procedure.best_estimator_[-1]
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if classes == 2:  # scikit-learn has one row: the logit of the second class minus that of the first
        coefficients, intercepts = (np.stack([-v / 2, v / 2]).squeeze(1) for v in (coefficients, intercepts))
    weight = coefficients / scaler.scale_
    bias = intercepts - weight @ scaler.mean_
    return LinearHead(
        _with_head(model, weight, bias, data.labels),
        rate(right),
        float(np.mean([right[y == k].mean() for k in present])),
        float(counts.max() / counts.sum()),
    )


def _with_head(model: Classifier, weight: np.ndarray, bias: np.ndarray, labels: tuple[str, ...] | None) -> Classifier:
    """Return a copy of the classifier whose last linear layer has these weights `[K, D]` and biases `[K]`."""
    network = with_classes(copy.deepcopy(model.module), len(bias))
    _, head = last_linear(network)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
    return Classifier(network.eval(), mean=mean, std=std, labels=labels).to(head.weight.device)


def _features(
    model: Classifier, data: Dataset, progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of the last linear layer for all images, `[n, D]`, and the labels `[n]`."""
    _, head = last_linear(model.module)
    features: list[Tensor] = []
    labels: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach().cpu().double()))
    try:
        with torch.no_grad(), frozen(model):
            for batch in data.batches(_BATCH):
                model(batch.x.to(head.weight.device))
                labels.append(batch.y)
                if progress is not None:
                    progress(sum(map(len, labels)), len(data))
    finally:
        handle.remove()
    return torch.cat(features).numpy(), torch.cat(labels).numpy()
