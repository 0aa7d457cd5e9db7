"""Small classifiers for `python:victims:...`: right, and wrong in every way that the command line must notice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

import underfire as uf
from underfire.data.digits import scans
from underfire.domains import Domain


class NearestMean(nn.Module):
    """Scikit-learn's digits by the nearest class mean: linear, about 90 % right; `sign` -1 is the farthest."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        x, y = scans()
        means = torch.stack([x[y == k].flatten(1).mean(0) for k in range(10)])
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = 2 * sign * means
        self.linear.bias.data = -sign * means.square().sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Bent(NearestMean):
    """The same with its answer bent by a function."""

    def __init__(self, bend: object) -> None:
        super().__init__()
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(super().forward(x))  # type: ignore[operator]


def right() -> nn.Module:
    return NearestMean()


def backwards() -> nn.Module:
    return NearestMean(-1.0)


def wrong_shape() -> nn.Module:
    return Bent(lambda logits: logits[:, :, None])


def not_a_number() -> nn.Module:
    return Bent(lambda logits: logits * float("nan"))


def two_answers() -> nn.Module:
    """The right model, whose answer is a tuple: the same logits backwards, then the logits."""
    return Bent(lambda logits: (-logits, logits))


def without_pooling() -> nn.Module:
    """A convolution that passes its image on, then the nearest mean: no global average pooling for CAM."""
    first = nn.Conv2d(1, 1, 1, bias=False)
    first.weight.data.fill_(1.0)
    return nn.Sequential(first, NearestMean())


def colour() -> nn.Module:
    """Two classes of colour images of any size: redder or bluer."""
    first = nn.Conv2d(3, 2, 1, bias=False)
    first.weight.data = torch.tensor([[4.0, 0.0, -4.0], [-4.0, 0.0, 4.0]])[:, :, None, None]
    return nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def table() -> uf.Classifier:
    """A model of rows of a table, which no method that needs images takes."""
    return uf.Classifier(nn.Linear(3, 2), domain=Domain("table", 2))


class Ends(NearestMean):
    """The right model, which calls a function at its fifth answer that never returns."""

    answers = 0

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        self.answers += 1
        if self.answers > 4:
            self.end()
        return super().forward(x)


def quits() -> nn.Module:
    """A factory that ends the program, as a script does that runs its main part when it is imported."""
    sys.exit({"0": 0, "None": None}.get(os.environ.get("VICTIM_QUITS", "0"), "bye"))


def quits_later() -> nn.Module:
    """A model that ends the program in the middle of an audit."""
    return uf.Classifier(Ends(quits))


def fails_later() -> nn.Module:
    """A model with a bug that shows in the middle of an audit."""
    return uf.Classifier(Ends({}.popitem))


def wrong_order() -> nn.Module:
    """A model whose classes are in another order: hardly ever right."""
    return uf.Classifier(Bent(lambda z: z.roll(1, 1)))


def probabilities() -> nn.Module:
    return Bent(lambda logits: logits.softmax(1))
