"""Classifiers of scikit-learn's digits for the tests of the audit, each for a reason."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from underfire.data.digits import scans
from underfire.domains import Domain
from underfire.model import Classifier


def head() -> nn.Linear:
    """The nearest class mean, which is linear in the image: about 90 % right, and attacks on it have a closed form."""
    x, y = scans()
    means = torch.stack([x[y == k].flatten(1).mean(0) for k in range(10)])
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(means)
        layer.bias.copy_(-0.5 * means.square().sum(1))
    return layer


def linear() -> nn.Module:
    """The linear model."""
    return nn.Sequential(nn.Flatten(), head())


class _Then(nn.Module):
    """The linear model between two functions."""

    def __init__(self, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.before, self.after = linear(), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.linear(self.before(x)))


def _same(x: Tensor) -> Tensor:
    return x


def saturated() -> nn.Module:
    """Logits so large that cross-entropy has no gradient; predictions as before."""
    return _Then(_same, lambda z: z * 1e5)


def rounded() -> nn.Module:
    """Pixels rounded to five levels: predictions nearly as before, no gradient at all."""
    return _Then(lambda x: (x * 4).round() / 4, _same)


def quantised() -> nn.Module:
    """Logits rounded: steps with no slope."""
    return _Then(_same, lambda z: (z * 2).round() / 2)


def noisy_gradient() -> nn.Module:
    """Predictions as before, and a gradient that points the other way."""
    return _Then(lambda x: 2 * x.detach() - x, _same)


def upside_down() -> nn.Module:
    """Never right: the least likely class of the linear model."""
    return _Then(_same, lambda z: -z)


def shifted() -> nn.Module:
    """A model whose classes are in another order."""
    return _Then(_same, lambda z: z.roll(1, 1))


def of_another_domain() -> Classifier:
    """A model that says its inputs are no images."""
    return Classifier(linear(), domain=Domain("series", 4))


def constant() -> nn.Module:
    """A model that says class 3 whatever it sees."""
    return _Then(_same, lambda z: z * 0 + nn.functional.one_hot(torch.tensor(3), 10))


def not_finite() -> nn.Module:
    """Logits that are not numbers."""
    return _Then(_same, lambda z: z / 0)


def one_number() -> nn.Module:
    """One number per image where logits should be."""
    return _Then(_same, lambda z: z.sum(1))


def three_classes() -> nn.Module:
    """Fewer classes than the data has."""
    return _Then(_same, lambda z: z[:, :3])


def convolutional() -> nn.Module:
    """Global average pooling and one linear layer: the 64 pixels as channels, so that it is the linear model again."""
    return nn.Sequential(
        nn.PixelUnshuffle(8), nn.Upsample(scale_factor=2.0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head()
    )


def pooling() -> nn.Module:
    """Two layers of random convolutions, global average pooling, and a linear layer fitted by least squares."""
    random = torch.Generator().manual_seed(0)
    convolutions = [nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1)]
    last = nn.Linear(24, 10)
    network = nn.Sequential(
        convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
    )
    x, y = scans()
    with torch.no_grad():
        for layer in convolutions:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=random) * (2 / layer.weight[0].numel()) ** 0.5)
            assert layer.bias is not None
            layer.bias.zero_()
        features = network[:-1](x)
        wanted = nn.functional.one_hot(y, 10) * 2.0 - 1
        solution = torch.linalg.lstsq(torch.cat([features, torch.ones(len(x), 1)], 1), wanted).solution
        last.weight.copy_(solution[:-1].T)
        last.bias.copy_(solution[-1])
    return network


def not_finite_in_a_worker() -> nn.Module:
    """The linear model here, not a number in a worker process."""
    return _Then(_same, lambda z: z / (multiprocessing.parent_process() is None))


def dies_in_a_worker() -> nn.Module:
    """The linear model, but a worker process that uses it ends at once, as one that runs out of memory does."""

    def die(x: Tensor) -> Tensor:
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        return x

    return _Then(die, _same)


class Blind(nn.Module):
    """The linear model, computed where gradients are off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def blind() -> nn.Module:
    """A model without any gradient."""
    return Blind()


class _Tokens(nn.Module):
    """The linear model, and a little of what two blocks of attention over patches say."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.embed, self.head = linear(), nn.Conv2d(1, 8, 2, 2), nn.Linear(8, 10)
        self.norm = nn.LayerNorm(8)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            z = self.norm(z + block(z, z, z)[0])
        return self.linear(x) + 0.01 * self.head(z.mean(1))


def tokens() -> nn.Module:
    """A transformer."""
    return _Tokens()


def narrow() -> nn.Module:
    """The linear model without the outermost columns: another network, about as good."""
    model = linear()
    with torch.no_grad():
        model[1].weight.view(10, 8, 8)[:, :, [0, 7]] = 0
    return model


def wide() -> nn.Module:
    """The linear model of images of 16 pixels: it averages squares of 2."""
    return nn.Sequential(nn.AvgPool2d(2), _OfSize(8), linear())


class _OfSize(nn.Module):
    """Refuse images of another size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            raise RuntimeError(f"images of {x.shape[-1]} pixels where {self.size} are expected")
        return x


def _named(names: list[str]) -> Classifier:
    return Classifier(linear(), labels=names)


def other_names() -> Classifier:
    """The linear model, whose classes have other names than those of the digits."""
    return _named(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def reversed_classes() -> Classifier:
    """The linear model, whose classes are named in reverse."""
    return _named([*"9876543210"])
