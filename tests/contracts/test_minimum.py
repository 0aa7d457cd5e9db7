"""Every attack of minimum size finds the nearest point of a linear model with two boundaries, known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import centred_linear

pytestmark = pytest.mark.slow
CARDS = {card.name: card for card in uf.cards("attack") if card.facts.minimal and not card.facts.models}
#: What is enough for a linear model.
SETTINGS: dict[str, dict[str, Any]] = {
    "boundary": {"queries": 1500},
    "hop_skip_jump": {"queries": 1500},
    "zoo": {"queries": 15_000, "c": 0.1, "binary_search_steps": 4},
    "carlini_wagner": {"steps": 200},
    "ddn": {"steps": 300},
    "ead": {"rule": "L1", "beta": 1e-2, "steps": 500},  # the default looks for little of L1 and L2 together
    "jsma": {"pair": False},  # a pair is two entries where one would do
}
#: How far from the nearest point it may end, where the method is exact on a linear model; elsewhere it is 1.25.
RATIO = {"deepfool": 1.05, "fab": 1.05, "fmn": 1.05}
DUAL = {"l2": 2.0, "linf": 1.0, "l1": math.inf}


@torch.no_grad()
def exact(model: nn.Sequential, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """The distance to the nearest boundary, `[B]`; for L0, the fewest entries that can cross one."""
    logits, weight = model(x), model[1].weight
    gap = logits.gather(1, y[:, None]) - logits  # [B, K], zero for y itself
    slope = weight[None] - weight[y][:, None]  # [B, K, d]
    if norm == "l0":
        flat = x.flatten(1)[:, None]
        gain = torch.maximum(slope * (1 - flat), -slope * flat)  # the most that one entry can do inside the box
        sums = gain.sort(dim=2, descending=True).values.cumsum(2)
        needed = (sums <= gap[:, :, None]).sum(2) + 1
        return needed.scatter(1, y[:, None], 10**6).amin(1).double()
    distance = gap / torch.linalg.vector_norm(slope, DUAL[norm], dim=2).clamp_min(1e-12)
    return distance.scatter(1, y[:, None], math.inf).amin(1)


@pytest.mark.parametrize(("name", "norm"), [(n, norm) for n, card in CARDS.items() for norm in card.facts.norms])
def test_the_nearest_point_of_a_linear_model(name: str, norm: str) -> None:
    generator = torch.Generator().manual_seed(7)
    model = centred_linear(torch.randn(3, 40, generator=generator, dtype=torch.float64))
    # Near the middle of the box, so that the box takes nothing from the nearest point (but for L0, which knows it).
    x = 0.5 + 0.05 * torch.randn(12, 2, 4, 5, generator=generator, dtype=torch.float64)
    y = model(x).argmax(1)
    wanted = exact(model, x, y, norm)
    options = {"norm": norm} if "norm" in CARDS[name].options else {}
    x_adv = CARDS[name](model, x, y, generator=generator, **options, **SETTINGS.get(name, {}))
    assert (model(x_adv).argmax(1) != y).all()
    size = uf.measures.perturbation.sizes(x, x_adv)[norm]
    ratio = size / wanted
    assert (ratio > 1 - 1e-6).all()  # nothing is nearer than the nearest
    assert float(ratio.median()) <= RATIO.get(name, 1.25)
    assert float(ratio.mean()) <= RATIO.get(name, 1.25) + 0.05
