"""Explain a whole network by one decision tree, a global surrogate (Craven and Shavlik, TREPAN, NeurIPS 1995)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.chunks import MEMORY
from underfire.attribution.feature_space import Known, read_known_images, require_fitted
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.errors import DataError, InputError, Unsupported, nearest
from underfire.measures.statistics import rate
from underfire.validate import at_least_one, default_generator

if TYPE_CHECKING:
    import numpy as np

    from underfire.data import Dataset
    from underfire.records import Interval

FEATURES = ("layer", "parts")
_COLOURS = {1: ("brightness",), 3: ("red", "green", "blue")}


@card(
    "interpreter",
    name="surrogate",
    paper="Craven and Shavlik, Extracting Tree-Structured Representations of Trained Networks, NeurIPS 1995",
    gives="rules",
    family="surrogate",
    differentiable=False,
    second_order=False,
)
class Surrogate:
    """Explain a network in words by a small decision tree that imitates it; measure how often both agree.

    The tree is the `DecisionTreeClassifier` of scikit-learn. It is fitted to the network's predictions for known
    images; in the paper, the tree also queries new images. Fidelity is measured on known images that are held out.

    Args:
        features: what the questions of the tree are about: `"layer"`, the channels of a layer, averaged over space; or
            `"parts"`, the mean colours of parts of the image.
        layer: the layer for `"layer"`; None is the last spatial layer.
        parts: the image is cut into this many rows and columns of parts, for `"parts"`.
        depth: the largest number of questions on one path.
        held_out: the share of the known images that is held out to measure fidelity.
        memory: MiB for the outputs of the layers while the known images are read.
        generator: draws which images are held out.

    Attributes:
        fidelity: how often tree and network agree on held-out images, with a confidence interval.
        constant: the same for a tree that always predicts the network's most frequent class.
        tree: the fitted `DecisionTreeClassifier`.
        text: the whole tree in words.
    """

    fidelity: Interval
    constant: Interval
    tree: Any
    text: str

    def __init__(
        self,
        *,
        features: str = "layer",
        layer: str | None = None,
        parts: int = 4,
        depth: int = 5,
        held_out: float = 0.25,
        memory: float = MEMORY,
        generator: torch.Generator | None = None,
    ) -> None:
        self.features, self.layer, self.parts, self.depth = features, layer, parts, depth
        self.held_out, self.memory, self.generator = held_out, memory, generator
        self._known: Known | None = None

    def fit(self, model: nn.Module, data: Dataset) -> Surrogate:
        """Grow the tree and measure its fidelity.

        Raises:
            InputError: an option is out of range. Unsupported: `features` is unknown. DataError: there are too few
                images to hold some out. ModelError: there is no such layer, or features are not finite.
        """
        from sklearn.tree import DecisionTreeClassifier, export_text

        if self.features not in FEATURES:
            raise Unsupported(f"features {self.features!r} is unknown; {nearest(self.features, FEATURES)}")
        at_least_one(depth=self.depth, parts=self.parts)
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out must lie between 0 and 1, such as 0.25, got {self.held_out}")
        known = read_known_images(model, data, self.layer, self.memory)
        held = round(self.held_out * len(data))
        if not 0 < held < len(data):
            raise DataError(f"{data.name}: of {len(data)} images, {held} would be held out; give more images")
        # split the known images
        order = torch.randperm(len(data), generator=default_generator(self.generator, torch.device("cpu")))
        values = _array(known.features if self.features == "layer" else self._read(data))
        answers = known.answers.cpu().numpy()
        kept, grown = order[:held].numpy(), order[held:].numpy()
        # grow the tree
        tree = DecisionTreeClassifier(max_depth=self.depth, random_state=0).fit(values[grown], answers[grown])
        self.tree, self._known = tree, known
        # measure its fidelity
        self.fidelity = rate(tree.predict(values[kept]) == answers[kept])
        values, counts = known.answers.cpu()[order[held:]].unique(return_counts=True)
        self.constant = rate(answers[kept] == int(values[counts.argmax()]))
        self._names = self._feature_names(known, data)
        self._classes = [_name(model, int(c)) for c in tree.classes_]
        self.text = export_text(tree, feature_names=self._names, class_names=self._classes, decimals=3)
        return self

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> list[list[str]]:
        """Return the path of each image down the tree in words, one string for each question and one for the answer.

        The answer says for how many known images in the leaf the network predicts the tree's class, and whether it
        does so for this image. If `y` `[B]` is another class, it also says for how many the network predicts `y`.

        Raises:
            NotFitted: `fit` was not called. DataError: `y` is wrong.
        """
        known = require_fitted(self._known, "surrogate")
        logits, features = known.seen(model, x)
        class_score(logits, y)
        if not len(x):
            return []
        values = _array(features if self.features == "layer" else _means(x, self.parts))
        paths, leaves, inner = self.tree.decision_path(values), self.tree.apply(values), self.tree.tree_
        rules = []
        for i, (leaf, answer) in enumerate(zip(leaves.tolist(), logits.argmax(1).tolist(), strict=True)):
            nodes = paths.indices[paths.indptr[i] : paths.indptr[i + 1]]
            lines = []
            for node in sorted(set(nodes.tolist()) - {leaf}):  # in the order of the path: children have larger numbers
                value, threshold = values[i, inner.feature[node]], inner.threshold[node]
                how = "at most" if value <= threshold else "above"
                lines.append(f"{self._names[inner.feature[node]]} is {value:.3g}, {how} {threshold:.3g}")
            rules.append([*lines, self._answer(model, leaf, answer, int(y[i]))])
        return rules

    def _answer(self, model: nn.Module, leaf: int, answer: int, y: int) -> str:
        """Return the last line of a path: the class that the tree predicts, and whether the network agrees."""
        inner, classes = self.tree.tree_, self.tree.classes_.tolist()
        total = int(inner.n_node_samples[leaf])
        shares = inner.value[leaf, 0] / inner.value[leaf, 0].sum()
        said = classes[int(shares.argmax())]

        def of(k: int) -> int:
            """Return for how many known images in the leaf the network predicts class k."""
            return round(float(shares[classes.index(k)]) * total) if k in classes else 0

        agrees = "as the network does" if said == answer else f"but the network says {_name(model, answer)}"
        line = f"so the tree says {_name(model, said)} ({of(said)} of {total} known images), {agrees}"
        return line if y == said else f"{line}; {_name(model, y)} is {of(y)} of {total}"

    def _read(self, data: Dataset) -> Tensor:
        return torch.cat([_means(batch.x, self.parts) for batch in data.batches(256)])

    def _feature_names(self, known: Known, data: Dataset) -> list[str]:
        if self.features == "layer":
            return [f"channel {i} of {known.layer}" for i in range(known.features.shape[1])]
        channels = data[:1].x.shape[1]
        colours = _COLOURS.get(channels, tuple(f"channel {i}" for i in range(channels)))
        places = [(r + 1, c + 1) for r in range(self.parts) for c in range(self.parts)]
        return [f"{colour} in row {r}, column {c}" for colour in colours for r, c in places]


def _means(x: Tensor, parts: int) -> Tensor:
    """Return the mean of each channel in each of `parts` x `parts` parts of the image, `[B, C * parts²]`."""
    return F.adaptive_avg_pool2d(x.detach(), parts).flatten(1)


def _array(features: Tensor) -> np.ndarray:
    return features.detach().to("cpu", torch.float32).numpy()


def _name(model: nn.Module, k: int) -> str:
    names = getattr(model, "labels", None)
    return names[k] if names is not None else f"class {k}"
