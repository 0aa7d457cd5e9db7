"""The networks on which attacks are compared, each with its test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from benchmarks.setting import correct, mnist, zoo
from underfire.data import Dataset
from underfire.model import Classifier


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        load: loads the classifier.
        first: the first size at which attacks of fixed size are run, by norm: about the median size that is needed.
        data: loads the test images; None is those of CIFAR-10.
    """

    load: Callable[[], Classifier]
    first: dict[str, float]
    data: Callable[[], Dataset] | None = None

    def setting(self, n: int, run: int) -> tuple[Classifier, Tensor, Tensor]:
        """Return the classifier, and the images and labels of a run."""
        return correct(self.load(), n, first=run * n, images=None if self.data is None else self.data())


_BOOPATHY = "interpretability_aware"
NETWORKS = {
    "resnet20": Network(partial(zoo, "resnet20_cifar10"), {"l2": 0.5, "linf": 0.01, "l1": 5.0}),
    "wresnet_adv": Network(partial(zoo, "cifar10_wresnet_adv", _BOOPATHY), {"l2": 0.7, "linf": 0.03, "l1": 12.0}),
    "mnist_normal": Network(partial(zoo, "mnist_small_normal", _BOOPATHY), {"l2": 1.0, "linf": 0.1, "l1": 8.0}, mnist),
    "mnist_adv": Network(partial(zoo, "mnist_small_adv", _BOOPATHY), {"l2": 2.0, "linf": 0.3, "l1": 12.0}, mnist),
    "mnist_trades": Network(partial(zoo, "mnist_small_cnn", "trades"), {"l2": 2.0, "linf": 0.35, "l1": 12.0}, mnist),
}
