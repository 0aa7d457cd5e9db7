"""MMD-critic (Kim, Khanna and Koyejo, Examples are not Enough, Learn to Criticize!, NeurIPS 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from underfire.attribution.chunks import MEMORY
from underfire.attribution.feature_space import Known, nearest_known, read_known_images, require_fitted
from underfire.attribution.scores import class_score
from underfire.catalog import card
from underfire.errors import InputError
from underfire.records import Examples
from underfire.validate import at_least_one

if TYPE_CHECKING:
    from underfire.data import Dataset

_COMPARED = 1000  # most features that are compared for their median distance


@card(
    "interpreter",
    name="prototypes",
    paper="Kim, Khanna and Koyejo, Examples are not Enough, Learn to Criticize! Criticism for Interpretability, "
    "NeurIPS 2016",
    gives="examples",
    family="by example",
    differentiable=False,
    second_order=False,
)
class Prototypes:
    """Show the nearest typical images of the class (prototypes) and the nearest that are unlike these (criticisms).

    Prototypes are chosen greedily so that the maximum mean discrepancy between them and all known images of the class
    is smallest. Criticisms are chosen greedily where these two distributions differ most, and unlike each other.

    Args:
        count: number of prototypes of each class (or in total, without `per_class`).
        criticisms: number of criticisms of each class (or in total).
        k: how many of each kind are shown for an image, the nearest first.
        per_class: choose and show for each class by itself, by the labels of the data; if False, over all classes.
        bandwidth: `m` of the kernel `exp(-gamma |a - b|²)` with `gamma = 1 / (2 m²)`; None is the median distance of
            known images.
        layer: the layer whose output, averaged over space, is the feature space; None is the last spatial layer.
        memory: MiB for the outputs of the layers, or for the entries of the kernel that are computed at once.

    Attributes:
        prototypes_: indices of all prototypes in the data, class by class in the order of their choice, int64.
        criticisms_: the same for all criticisms.
        gamma_: `gamma` of the kernel.
    """

    def __init__(
        self,
        *,
        count: int = 10,
        criticisms: int = 5,
        k: int = 3,
        per_class: bool = True,
        bandwidth: float | None = None,
        layer: str | None = None,
        memory: float = MEMORY,
    ) -> None:
        self.count, self.criticisms, self.k, self.per_class = count, criticisms, k, per_class
        self.bandwidth, self.layer, self.memory = bandwidth, layer, memory
        self._known: Known | None = None

    def fit(self, model: nn.Module, data: Dataset) -> Prototypes:
        """Choose prototypes and criticisms among the images of `data`.

        Raises:
            DataError: there are no images. ModelError: there is no such layer. InputError: an option is out of range.
        """
        at_least_one(count=self.count, k=self.k)
        if self.criticisms < 0 or (self.bandwidth is not None and not self.bandwidth > 0):
            raise InputError(f"criticisms must be >= 0 and bandwidth > 0, got {self.criticisms} and {self.bandwidth}")
        known = read_known_images(model, data, self.layer, self.memory)
        features = known.features - known.features.mean(0)  # closer to zero, where squares lose less to rounding
        self.gamma_ = median_gamma(features) if self.bandwidth is None else 1 / (2 * self.bandwidth**2)
        everything = torch.arange(len(features), device=features.device)
        groups = [everything[known.y == k] for k in known.y.unique()] if self.per_class else [everything]
        typical, critical = [], []
        for rows in groups:  # one class, or all images
            part = features[rows]
            closeness = mean_kernel(part, self.gamma_, self.memory)
            chosen = choose_prototypes(part, closeness, self.count, self.gamma_)
            typical.append(rows[chosen])
            critical.append(rows[choose_criticisms(part, closeness, chosen, self.criticisms, self.gamma_)])
        self.prototypes_, self.criticisms_ = torch.cat(typical), torch.cat(critical)
        self._known = known
        return self

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Examples:
        """Return the `k` nearest prototypes of class `y` `[B]`, then its `k` nearest criticisms, for each image.

        Raises:
            NotFitted: `fit` was not called. DataError: `y` is wrong.
        """
        known = require_fitted(self._known, "prototypes")
        logits, features = known.seen(model, x)
        class_score(logits, y)
        distances, places = [], []
        notes: tuple[str, ...] = ()
        for note, chosen in (("prototype", self.prototypes_), ("criticism", self.criticisms_)):
            if len(chosen):
                allowed = (y, known.y[chosen]) if self.per_class else None
                distance, place = nearest_known(features, known.features[chosen], self.k, allowed=allowed)
                distances.append(distance)
                places.append(torch.where(place < 0, place, chosen[place]))
                notes += (note,) * self.k
        return known.examples(torch.cat(places, 1), torch.cat(distances, 1), notes)


def median_gamma(features: Tensor) -> float:
    """Return `1 / (2 m²)` with the median distance `m` of the features, or of evenly spaced ones if there are many."""
    some = features[:: -(-len(features) // _COMPARED)]
    distances = torch.pdist(some)
    middle = float(distances.median()) if len(distances) else 0.0
    return 1 / (2 * middle**2) if middle > 0 else 1.0


def kernel(a: Tensor, b: Tensor, gamma: float) -> Tensor:
    """Return `exp(-gamma |a_i - b_j|²)`, `[N, M]`."""
    squares = a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)
    return squares.clamp_min_(0).mul_(-gamma).exp_()


def mean_kernel(features: Tensor, gamma: float, memory: float = MEMORY) -> Tensor:
    """Return the mean of the kernel between each image and all, `[N]`, with at most `memory` MiB of it at once."""
    rows = max(1, int(memory * 2**20 // (2 * len(features) * features.element_size())))
    return torch.cat([kernel(part, features, gamma).mean(1) for part in features.split(rows)])


def choose_prototypes(features: Tensor, closeness: Tensor, count: int, gamma: float) -> Tensor:
    """Choose greedily the set S of largest `J(S) = 2 / (n |S|) Σ k(x_i, s) - 1 / |S|² Σ k(s, s')`, int64 `[count]`.

    Up to a constant, `J` is minus the squared maximum mean discrepancy between S and all images.

    Args:
        features: `[N, D]`.
        closeness: their `mean_kernel`, `[N]`.
        count: size of S; all images, if there are fewer.
        gamma: of the kernel.
    """
    chosen: list[Tensor] = []
    free = torch.ones_like(closeness, dtype=torch.bool)
    to_chosen = torch.zeros_like(closeness)  # the sum of the kernel between each image and S
    among, to_all = closeness.new_zeros(()), closeness.new_zeros(())  # the two sums of J(S)
    for size in range(1, min(count, len(features)) + 1):
        # J of S with each image added
        gain = 2 / size * (to_all + closeness) - (among + 2 * to_chosen + 1) / size**2
        best = torch.where(free, gain, float("-inf")).argmax()
        # add the best image and update the sums
        among, to_all = among + 2 * to_chosen[best] + 1, to_all + closeness[best]
        to_chosen = to_chosen + kernel(features, features[best, None], gamma).squeeze(1)
        free[best] = False
        chosen.append(best)
    return torch.stack(chosen)


def choose_criticisms(features: Tensor, closeness: Tensor, chosen: Tensor, count: int, gamma: float) -> Tensor:
    """Choose greedily the set C of largest `Σ |witness(c)| + log det K_CC` among the other images, int64 `[count]`.

    `witness(c)` is the mean of the kernel between c and all images minus its mean between c and the prototypes; K_CC is
    the kernel between the images of C.

    Args:
        features: `[N, D]`.
        closeness: their `mean_kernel`, `[N]`.
        chosen: indices of the prototypes.
        count: size of C; if fewer images are not prototypes, all of these.
        gamma: of the kernel.
    """
    witness = (closeness - kernel(features, features[chosen], gamma).mean(1)).abs()
    free = torch.ones_like(closeness, dtype=torch.bool)
    free[chosen] = False
    count = min(count, len(features) - len(chosen))
    # An added image c raises log det K_CC by the log of its variance given C, which a Cholesky factor keeps.
    variance, factor = torch.ones_like(closeness), features.new_zeros(count, len(features))
    found: list[Tensor] = []
    for step in range(count):
        # gain of each image
        gain = witness + variance.clamp_min(torch.finfo(variance.dtype).eps).log()
        best = torch.where(free, gain, float("-inf")).argmax()
        # add the best image and update the factor
        column = kernel(features[best, None], features, gamma).squeeze(0) - factor[:step, best] @ factor[:step]
        factor[step] = column / variance[best].clamp_min(torch.finfo(variance.dtype).eps).sqrt()
        variance = variance - factor[step].square()
        free[best] = False
        found.append(best)
    return torch.stack(found) if found else chosen[:0]
