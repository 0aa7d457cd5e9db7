"""Compositions of the terms with views, moves and estimators that nobody has named, against slow versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import underfire as uf
from tests.attacks.transfer.slow import EPS, STEPS, climb, diverse, smoothed
from tests.networks import build_network, rand, seeded
from underfire.ascent.objectives import cross_entropy
from underfire.attacks.transfer.transformation import AdversarialTransformation
from underfire.model import Classifier

Y = torch.tensor([0, 1, 2])
Versions = Callable[[Tensor], Sequence[Tensor]]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return build_network("smooth", torch.float64)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 0.2 + 0.6 * rand(3, 3, 12, 12, dtype=torch.float64)


def features(model: Classifier, x: Tensor) -> list[Tensor]:
    """The outputs of the two activations."""
    z, found = (x - 0.5) / 0.25, []
    for number, layer in enumerate(model.module):
        z = layer(z)
        if number in (1, 3):
            found.append(z)
    return found


def fitted(a: Tensor, like: Tensor) -> Tensor:
    return a if a.shape == like.shape else F.interpolate(a, like.shape[2:], mode="bilinear")


def slow(model: Classifier, x: Tensor, versions: Versions, tap: bool, ata: float) -> Callable[[Tensor], Tensor]:
    """The gradient of the cross-entropy with the terms, averaged over versions."""

    def attention(v: Tensor) -> Tensor:
        a = features(model, v)[1]
        weight = torch.autograd.grad(model.module[4:](a).gather(1, Y[:, None]).sum(), a, create_graph=True)[0]
        return (weight.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).relu()

    before = [a.detach() for a in features(model, x)]
    heat = attention(x.clone().requires_grad_()).detach()

    def value(v: Tensor, z: Tensor) -> Tensor:
        total = F.cross_entropy(model(v), Y, reduction="sum")
        if tap:
            for a, b in zip(features(model, v), before, strict=True):
                total = total + 0.005 * (fitted(a, b).sqrt() - b.sqrt()).square().sum()
            total = total + 0.01 * F.avg_pool2d(z - x, 3).abs().sum()
        if ata:
            gap = (fitted(attention(v), heat) - heat).square().sum((1, 2, 3))
            total = total + ata * gap[gap > 0].sqrt().sum()
        return total

    def gradient(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        seen = versions(z)
        return sum(torch.autograd.grad(value(v, z), z, retain_graph=True)[0] for v in seen) / len(seen)

    return gradient


def halves(z: Tensor) -> list[Tensor]:
    return [z, z / 2]


@pytest.mark.parametrize(
    ("name", "tap", "ata"), [("tap_ni_si", True, 0.0), ("ata_ni_si", False, 3.0), ("si_tap_ni_ata", True, 3.0)]
)
def test_terms_of_scaled_copies(model: Classifier, x: Tensor, name: str, tap: bool, ata: float) -> None:
    options = {"copies": 2, "objective": cross_entropy(), **_named(name, tap, ata)}
    ours = uf.find("attack", name)(model, x, Y, eps=EPS, steps=STEPS, **options)
    assert (ours - climb(x, slow(model, x, halves, tap, ata), ahead=True)).abs().max() < 1e-9


@pytest.mark.parametrize(("name", "tap", "ata"), [("mi_tap_di_ti", True, 0.0), ("di_ata_tap_mi_ti", True, 3.0)])
def test_terms_of_images_of_another_size(model: Classifier, x: Tensor, name: str, tap: bool, ata: float) -> None:
    draws = seeded(4)

    def padded(z: Tensor) -> list[Tensor]:
        return [diverse(z, draws)]

    options = {"rate": 1.25, "size": 3, "objective": cross_entropy(), **_named(name, tap, ata)}
    ours = uf.find("attack", name)(model, x, Y, eps=EPS, steps=STEPS, generator=seeded(4), **options)
    plain = slow(model, x, padded, tap, ata)
    assert (ours - climb(x, lambda z: smoothed(plain(z), 3))).abs().max() < 1e-9


def test_a_transformation_behind_every_view(model: Classifier, x: Tensor) -> None:
    network = AdversarialTransformation(3, generator=seeded(1), like=x)
    network.trained = True
    options = {"copies": 2, "weights": network, "gamma": 0.5, "objective": cross_entropy()}
    ours = uf.find("attack", "si_at_mi")(model, x, Y, eps=EPS, steps=STEPS, **options)

    def gradient(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        losses = [F.cross_entropy(model(v), Y, reduction="sum") for v in halves(z)]
        behind = [F.cross_entropy(model(network(v)), Y, reduction="sum") for v in halves(z)]
        return torch.autograd.grad(sum(losses) / 2 + 0.5 * sum(behind) / 2, z)[0]

    assert (ours - climb(x, gradient)).abs().max() < 1e-9


def _named(name: str, tap: bool, ata: float) -> dict[str, object]:
    """Options of the terms, by the names that they have in the composition."""
    options = uf.find("attack", name).options
    given: dict[str, object] = {"layers": ("1", "3"), "tap_layers": ("1", "3"), "ata_layers": ("3",)}
    given["ata_weight"] = ata
    if not tap:
        given |= {"weight": ata, "layers": ("3",)}
    return {key: value for key, value in given.items() if key in options}


def test_the_text_says_which_loss_and_which_steps() -> None:
    assert "`logit`" in (uf.attacks.logit_attack.__doc__ or "")
    assert "`eps / steps`" not in (uf.attacks.logit_attack.__doc__ or "").splitlines()[0]
    assert "`log_odds`" in (uf.attacks.tap.__doc__ or "")
