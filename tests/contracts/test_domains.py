"""Every attack whose card names tables or series runs on inputs of any number of dimensions, and stays in their box."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.contracts.test_attacks import SETTINGS
from tests.networks import rand, seeded
from underfire.domains import Domain
from underfire.errors import Unsupported
from underfire.model import Classifier

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

CARDS = {card.name: card for card in uf.cards("attack") if not card.facts.models}
ADDITIVE = [name for name, card in CARDS.items() if "table" in card.facts.domains]
IMAGES_ONLY = [name for name in CARDS if name not in ADDITIVE]
SIZES = {"linf": 0.3, "l2": 1.0, "l1": 2.0, "l0": 3.0}
SHAPES = [(8,), (4, 6), (5, 7, 7)]


def classifier(shape: tuple[int, ...], domain: Domain) -> Classifier:
    """Return a small smooth network of three classes on inputs of this shape."""
    features = torch.Size(shape).numel()
    body = nn.Sequential(nn.Flatten(), nn.Linear(features, 16), nn.Softplus(), nn.Linear(16, 3))
    with torch.no_grad():
        for i, parameter in enumerate(body.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(i)) * (2 / parameter.shape[-1]) ** 0.5)
    return Classifier(body.eval(), domain=domain)


def attacked(name: str, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    options = {**SETTINGS.get(name, {}), "generator": seeded(1)}
    if "eps" in CARDS[name].options and not CARDS[name].facts.minimal:
        options["eps"] = SIZES[CARDS[name].facts.norms[0]]
    return CARDS[name](model, x, y, **options)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ADDITIVE)
def test_any_number_of_dimensions(name: str, shape: tuple[int, ...]) -> None:
    domain = Domain({1: "table", 2: "series", 3: "image"}[len(shape)], len(shape) + 1)
    model, x = classifier(shape, domain), rand(4, *shape)
    y = model(x).argmax(1)
    x_adv = attacked(name, model, x, y)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    domain.check(x_adv)
    if CARDS[name].facts.norms[0] in SIZES and not CARDS[name].facts.minimal:
        size = uf.ascent.threats.ball(CARDS[name].facts.norms[0], 1.0).size(x, x_adv)
        assert (size <= SIZES[CARDS[name].facts.norms[0]] * (1 + 1e-4)).all()


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_table_keeps_its_box_and_its_fixed_columns(name: str) -> None:
    low, high = (-1.0, 0.0, 10.0, 0.0, -3.0, 0.0), (1.0, 5.0, 12.0, 1.0, 3.0, 2.0)
    kinds = ("numeric", "immutable", "numeric", "categorical", "numeric", "numeric")
    domain = Domain("table", 2, low=low, high=high, kinds=kinds)
    model = classifier((6,), domain)
    x = torch.tensor(low) + rand(5, 6) * (torch.tensor(high) - torch.tensor(low))
    y = model(x).argmax(1)
    x_adv = attacked(name, model, x, y)
    domain.check(x_adv)
    assert torch.equal(x_adv[:, [1, 3]], x[:, [1, 3]])


@pytest.mark.parametrize("name", IMAGES_ONLY)
def test_an_attack_on_images_refuses_a_table(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        CARDS[name].check_domain("table")
