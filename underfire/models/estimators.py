"""Use estimators of scikit-learn as models: linear models, support vector machines, trees, nearest neighbours.

`from_sklearn` makes a module that computes the same as a fitted estimator (for nearest neighbours, a differentiable
approximation); `as_oracle` makes an oracle of any classifier, which answers with the estimator's own `predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from underfire.errors import ModelError
from underfire.model import Classifier, Oracle
from underfire.models.trees import DecisionTree

if TYPE_CHECKING:
    import numpy as np


class Linear(nn.Linear):
    """A linear model from the pixels of images `[B, C, H, W]` to logits `[B, K]`.

    Args:
        weight: `[K, C * H * W]`.
        bias: `[K]`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], device="meta")
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`."""
        return super().forward(x.flatten(1))


class PairwiseSVM(nn.Module):
    """A linear or RBF support vector machine with one decision for each pair of classes, as scikit-learn's `SVC`.

    The logits are the `decision_function` of `SVC` with the shape `"ovr"`: the votes of the pairs, plus a term smaller
    than one half that grows with the decisions of the pairs. Only this term has a gradient. It decides between equal
    votes, as in scikit-learn with `break_ties=True`.

    Args:
        vectors: support vectors `[S, D]`.
        coefficients: weights of the support vectors in the decision of each pair, `[P, S]`, with
            `P = K (K - 1) / 2`; positive towards the first class.
        intercept: the constant term of each decision, `[P]`.
        classes: the number of classes `K`.
        gamma: the factor in the kernel `exp(-gamma |x - v|²)`; None is the linear kernel.
    """

    coefficients: Tensor
    intercept: Tensor
    vectors: Tensor
    first: Tensor
    second: Tensor
    gamma: Tensor | None

    def __init__(
        self, vectors: Tensor, coefficients: Tensor, intercept: Tensor, classes: int, gamma: float | None
    ) -> None:
        super().__init__()
        self.register_buffer("gamma", None if gamma is None else vectors.new_tensor(gamma))
        if gamma is None:  # add up the support vectors to one weight vector for each pair
            coefficients, vectors = coefficients @ vectors, vectors.new_zeros(0)
        pairs = torch.combinations(torch.arange(classes))
        shares = nn.functional.one_hot(pairs, classes).to(coefficients)  # [P, 2, K]
        for name, value in (
            ("vectors", vectors),
            ("coefficients", coefficients),
            ("intercept", intercept),
            ("first", shares[:, 0]),
            ("second", shares[:, 1]),
        ):
            self.register_buffer(name, value)

    def decisions(self, x: Tensor) -> Tensor:
        """Return the decision of every pair `[B, P]`, positive for the pair's first class."""
        flat = x.flatten(1).to(self.coefficients.dtype)
        if self.gamma is None:
            return flat @ self.coefficients.T + self.intercept
        kernel = (-self.gamma * _squared_distances(flat, self.vectors)).exp()
        return kernel @ self.coefficients.T + self.intercept

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`."""
        decisions = self.decisions(x)
        if self.first.shape[1] == 2:
            return torch.cat((decisions, torch.zeros_like(decisions)), 1)
        votes = (decisions >= 0).to(decisions)
        votes = votes @ self.first + (1 - votes) @ self.second
        sums = decisions @ (self.first - self.second)
        return votes + sums / (3 * (sums.abs() + 1))


class SoftNeighbours(nn.Module):
    """A differentiable nearest-neighbour classifier: every point votes for its class, and near points count most.

    The softmax of the logits is `F(x) = sum_z exp(-|z - x|² / temperature) Y_z / sum_z exp(-|z - x|² / temperature)`;
    as the temperature goes to zero, it approaches the label of the nearest point.

    Source: Papernot, McDaniel and Goodfellow, Transferability in Machine Learning: from Phenomena to Black-Box Attacks
        using Adversarial Samples, 2016, where the temperature is 1.

    Args:
        points: `[N, D]`.
        labels: the class of each point, int64 `[N]`; every class must have a point.
        temperature: the temperature of the softmax over points, in squared units of the image.

    Raises:
        ModelError: the temperature is not positive, or a class has no point.
    """

    points: Tensor
    labels: Tensor
    temperature: Tensor

    def __init__(self, points: Tensor, labels: Tensor, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ModelError(f"temperature must be positive, got {temperature}")
        order = labels.argsort(stable=True)
        self.counts = torch.bincount(labels).tolist()
        if min(self.counts) == 0:
            raise ModelError(f"class {self.counts.index(0)} has no point")
        # Everything that determines the answers is in the state, which identifies a model.
        self.register_buffer("points", points[order])
        self.register_buffer("labels", labels[order])
        self.register_buffer("temperature", points.new_tensor(temperature))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`."""
        distances = _squared_distances(x.flatten(1).to(self.points.dtype), self.points)
        near = -distances / self.temperature
        return torch.stack([part.logsumexp(1) for part in near.split(self.counts, 1)], 1)


def from_sklearn(
    estimator: Any, shape: Sequence[int], *, temperature: float = 1.0, labels: Sequence[str] | None = None
) -> Classifier:
    """Return a classifier of images that computes what a fitted estimator of scikit-learn computes.

    Linear models (`LogisticRegression`, `LinearSVC`, `SGDClassifier`, `RidgeClassifier`, `Perceptron`, and
    `OneVsRestClassifier` of them) and `SVC` with a linear or RBF kernel give logits equal to the
    `decision_function` (for two classes, its value is the second logit minus the first). `DecisionTreeClassifier`
    gives the class shares of the leaf, exactly. `KNeighborsClassifier` gives `SoftNeighbours` of its points, for any
    number of neighbours: use it to make adversarial images, and test them on `as_oracle(estimator)`.

    Args:
        estimator: fitted on images flattened to rows `[N, C * H * W]`, in `[0, 1]`.
        shape: the shape of an image, `(C, H, W)`.
        temperature: the temperature of `SoftNeighbours`.
        labels: names of the classes; None takes those of the estimator.

    Raises:
        ModelError: the estimator is not fitted, was fitted on another number of features, or is of another kind.
    """
    classes = _classes(estimator)
    count = getattr(estimator, "n_features_in_", prod(shape))
    if count != prod(shape):
        raise ModelError(f"the estimator takes {count} features, but an image {tuple(shape)} has {prod(shape)}")
    kinds = {kind.__name__ for kind in type(estimator).__mro__}
    parts = estimator.estimators_ if "OneVsRestClassifier" in kinds else [estimator]
    if kinds & {"SVC", "NuSVC"} and estimator.kernel in ("linear", "rbf"):
        module: nn.Module = _pairwise(estimator, len(classes))
    elif "DecisionTreeClassifier" in kinds:
        module = _tree(estimator)
    elif "KNeighborsClassifier" in kinds:
        points, point_labels = _tensor(estimator._fit_X), torch.as_tensor(estimator._y).long().reshape(-1)
        module = SoftNeighbours(points, point_labels, temperature)
    elif all(hasattr(part, "coef_") for part in parts):
        module = _linear(parts)
    else:
        raise ModelError(
            f"{type(estimator).__name__} is not a linear model, support vector machine (linear, rbf), decision tree or "
            f"nearest-neighbour classifier; use as_oracle(estimator)"
        )
    names = tuple(map(str, classes.tolist())) if labels is None else labels
    return Classifier(module.eval(), labels=names).eval()


def as_oracle(estimator: Any) -> Oracle:
    """Return an oracle that answers with the estimator's own `predict`, of images flattened to float32 rows.

    Raises:
        ModelError: the estimator is not fitted.
    """
    import numpy as np

    classes = _classes(estimator)

    def answer(x: Tensor) -> Tensor:
        predicted = estimator.predict(x.detach().flatten(1).to("cpu", torch.float32).numpy())
        return torch.from_numpy(np.searchsorted(classes, predicted))

    return Oracle(answer, len(classes))


def _classes(estimator: Any) -> np.ndarray:
    """Return the class labels of a fitted classifier."""
    classes = getattr(estimator, "classes_", None)
    if classes is None or not hasattr(classes, "tolist"):
        raise ModelError(f"{type(estimator).__name__} has no classes_: it must be a fitted classifier")
    return classes


def _tensor(values: Any) -> Tensor:
    """Return an array, dense or sparse, as a float32 tensor."""
    dense = values.toarray() if hasattr(values, "toarray") else values
    return torch.as_tensor(dense, dtype=torch.float64).to(torch.float32)


def _squared_distances(x: Tensor, points: Tensor) -> Tensor:
    """Return `|x - z|²`, `[B, N]`, without making a tensor of size `[B, N, D]`."""
    return (x.square().sum(1, keepdim=True) - 2 * x @ points.T + points.square().sum(1)).clamp_min(0)


def _linear(parts: Sequence[Any]) -> Linear:
    """Return the linear model that joins the rows of one estimator or several."""
    weight = torch.cat([_tensor(part.coef_).reshape(-1, part.coef_.shape[-1]) for part in parts])
    bias = torch.cat([_tensor(part.intercept_).reshape(-1).expand(len(weight) // len(parts)) for part in parts])
    if len(weight) == 1:  # for two classes there is one decision, positive for the second class
        weight, bias = torch.cat((0 * weight, weight)), torch.cat((0 * bias, bias))
    return Linear(weight, bias)


def _pairwise(estimator: Any, classes: int) -> PairwiseSVM:
    """Return the module of an `SVC`, with the coefficients of each pair of classes taken from `dual_coef_`."""
    vectors, dual, counts = _tensor(estimator.support_vectors_), _tensor(estimator.dual_coef_), estimator.n_support_
    owner = torch.repeat_interleave(torch.arange(classes), torch.as_tensor(counts).long())
    # For i < j, row j - 1 of `dual` has the coefficients of class i against j, and row i those of class j against i.
    coefficients = torch.stack(
        [(owner == i) * dual[j - 1] + (owner == j) * dual[i] for i, j in torch.combinations(torch.arange(classes))]
    )
    sign = -1 if classes == 2 else 1  # for two classes, scikit-learn changes the sign: positive is the second class
    gamma = None if estimator.kernel == "linear" else float(estimator._gamma)
    return PairwiseSVM(vectors, sign * coefficients, sign * _tensor(estimator.intercept_), classes, gamma)


def _tree(estimator: Any) -> DecisionTree:
    """Return the module of a decision tree with one output."""
    tree = estimator.tree_
    if tree.n_outputs != 1:
        raise ModelError(f"the tree has {tree.n_outputs} outputs; one is supported")
    feature, left, right = (torch.as_tensor(v).long() for v in (tree.feature, tree.children_left, tree.children_right))
    values = torch.as_tensor(tree.value[:, 0]).double()
    return DecisionTree(feature, torch.as_tensor(tree.threshold).double(), left, right, values)
