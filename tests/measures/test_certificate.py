"""Certificates: sound, exact for a linear network, and as published for the networks that were trained for them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from underfire.errors import InputError, Unsupported
from underfire.measures.certificate import margin_bound
from underfire.model import Classifier


def small(seed: int = 0) -> Classifier:
    """A convolutional network of two ReLUs, with random weights, for images 1 x 6 x 6."""
    generator = torch.Generator().manual_seed(seed)
    layers = (
        *(nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
    )
    network = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / weight[0].numel() ** 0.5)
    return Classifier(network, mean=0.4, std=0.3)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return 0.2 + 0.6 * torch.rand(5, 1, 6, 6, generator=generator, dtype=torch.float64)


def margins(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x).detach()
    return logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).amax(1)


def test_the_bound_of_a_linear_network_is_exact(x: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    model, y = Classifier(network, std=0.5), torch.tensor([0, 1, 0, 1, 0])
    w = 2 * (network[1].weight[y] - network[1].weight[1 - y]).detach()
    plain = margins(model, x, y)
    assert torch.allclose(margin_bound(model, x, y, eps=0.1), plain - 0.1 * w.abs().sum(1))
    assert torch.allclose(margin_bound(model, x, y, eps=0.1, norm="l2"), plain - 0.1 * w.norm(dim=1))
    # a perturbation stays in the box
    corner = (x > 0.5).double()
    reach = torch.where((corner.flatten(1) == 1) == (w > 0), w.abs() * 0.1, 0.0).sum(1)
    assert torch.allclose(margin_bound(model, corner, y, eps=0.1), margins(model, corner, y) - reach)


def test_the_bound_without_a_perturbation_is_the_margin(x: Tensor) -> None:
    y = torch.tensor([0, 1, 2, 0, 1])
    for norm in ("linf", "l2"):
        assert torch.allclose(margin_bound(small(), x, y, eps=0, norm=norm, chunk=2), margins(small(), x, y))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("linf", 0.1), ("l2", 0.1), ("l2", 0.5)])
def test_no_perturbation_goes_below_the_bound(x: Tensor, generator: torch.Generator, norm: str, eps: float) -> None:
    for seed in range(3):
        model = small(seed)
        y = model(x).argmax(1)
        bound = margin_bound(model, x, y, eps=eps, norm=norm)
        found = uf.attacks.pgd(model, x, y, norm=norm, eps=eps, steps=20)
        noise = torch.randn(200, *x.shape, generator=generator, dtype=x.dtype)
        noise = noise.sign() if norm == "linf" else noise / noise.flatten(2).norm(dim=2)[..., None, None, None]
        changed = torch.cat([found[None], (x + eps * noise).clamp(0, 1)])
        seen = margins(model, changed.flatten(0, 1), y.repeat(len(changed))).unflatten(0, (-1, len(x)))
        assert torch.all(seen >= bound - 1e-9)
        assert torch.all(bound <= margins(model, x, y))


def test_the_bounds_are_those_of_the_paper(x: Tensor) -> None:
    """Compare with the matrices of the dual network, written out for one hidden layer."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    (w, b), (v, d) = (tuple(p.detach() for p in network[i].parameters()) for i in (1, 3))
    y = torch.tensor([0, 1, 2, 0, 1])
    bound = margin_bound(Classifier(network), x, y, eps=0.05)
    for i in range(5):
        z = w @ x[i].flatten() + b
        low, high = z - 0.05 * w.abs().sum(1), z + 0.05 * w.abs().sum(1)
        gaps = []
        for other in {0, 1, 2} - {int(y[i])}:
            c = v[y[i]] - v[other]
            slope = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, high / (high - low))).double()
            nu = c * slope
            value = d[y[i]] - d[other] + nu @ z - 0.05 * (nu @ w).abs().sum()
            unstable = (low < 0) & (high > 0)
            gaps.append(value + (low * slope * (-c).clamp_min(0))[unstable].sum())
        assert torch.allclose(bound[i], min(gaps))


def test_what_cannot_be_certified_gets_one_line(x: Tensor, relu_model: Classifier) -> None:
    y = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(Unsupported, match="Tanh"):
        margin_bound(nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(36, 2)).double(), x, y, eps=0.1)
    with pytest.raises(Unsupported, match="l1"):
        margin_bound(small(), x, y, eps=0.1, norm="l1")
    with pytest.raises(InputError, match="eps"):
        margin_bound(small(), x, y, eps=-1)
    assert margin_bound(small(), x[:0], y[:0], eps=0.1).shape == (0,)


def attacks_of(norm: str) -> dict[str, functools.partial[Tensor]]:
    """Every attack that changes the class and takes a size in a norm, quick; for L2, those that take no other."""
    found = {}
    for card in uf.cards("attack"):
        complete = all(p.default is not p.empty for p in card.options.values())
        aims = card.facts.quadrant == "prediction changed" and not card.facts.models
        if complete and aims and norm in card.facts.norms and (norm == "linf" or "linf" not in card.facts.norms):
            options = {"norm": norm} if "norm" in card.options else {}
            found[card.name] = functools.partial(card.function, **{**card.facts.quick, **options})
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.05)])
def test_no_attack_of_the_catalogue_beats_a_certificate(x: Tensor, norm: str, eps: float) -> None:
    model, x = small(), x.float()
    y = model(x).argmax(1)
    certain = margin_bound(model, x, y, eps=eps, norm=norm) > 1e-5  # more than the rounding of float32
    assert certain.sum() >= 3
    x, y, certain = x[certain], y[certain], certain[certain]  # nothing is said of the others
    attacks = attacks_of(norm)
    assert norm == "l2" or {"pgd", "autoattack"} <= set(attacks)
    for name, attack in attacks.items():
        kept = margins(model, attack(model, x, y, eps=eps), y) > 0
        assert torch.all(kept[certain]), name


#: The norm and the size for which the networks were trained to be certified.
NETWORKS = {
    "mnist_linf_0.1": ("linf", 0.1),
    "mnist_linf_0.3": ("linf", 0.3),
    "cifar10_linf_8_255": ("linf", 8 / 255),
    "cifar10_l2_36_255": ("l2", 36 / 255),
}


#: One attack of each kind, quick; the test above has all attacks of the catalogue.
ATTACKS: dict[str, dict[str, Any]] = {
    "linf": {"fgsm": {}, "apgd": {"steps": 20}, "fmn": {"steps": 20}, "square": {"queries": 50}},
    "l2": {"apgd": {"steps": 20}, "ddn": {"steps": 20}, "square": {"queries": 50}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_no_attack_beats_a_certificate(name: str, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERFIRE_DATA", str(data_root))
    norm, eps = NETWORKS[name]
    data = f"mnist:{data_root}/mnist" if name.startswith("mnist") else f"parquet:{data_root}/cifar10-test.parquet"
    model = uf.models.load(f"zoo:{name}")
    x, y = uf.data.load(data)[:32]
    surest = margins(model, x, y).topk(2).indices  # a bound of each image takes a second
    x, y = x[surest], y[surest]
    bound = margin_bound(model, x, y, eps=eps, norm=norm)
    certain = bound > 1e-4  # more than the rounding of float32
    assert certain.any()
    for attack, options in ATTACKS[norm].items():
        x_adv = uf.find("attack", attack)(model, x, y, norm=norm, eps=eps, **options)
        assert torch.all(margins(model, x_adv, y)[certain] > 0), attack
    strongest = uf.attacks.pgd(model, x, y, norm=norm, eps=eps, steps=30)
    assert torch.all(margins(model, strongest, y) >= bound - 1e-4)
