"""What every method of training of the catalogue promises, and that a broken promise is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from underfire.testing import check_training
from underfire.testing.training import PROMISES, toy_network
from underfire.training import Plan, Training

CARDS = {card.name: card for card in uf.cards("training")}
#: What makes a method quick, or what it must be given.
SETTINGS: dict[str, dict[str, Any]] = {
    "adversarial": {"steps": 2},
    "adversarial_generator": {"width": 4},
    "ensemble_adversarial": {"sources": [toy_network()]},
    "free": {"replays": 2},
    "ig_norm": {"steps": 1, "points": 2, "points_of_attack": 1, "weight": 0.1},
    "ig_sum_norm": {"steps": 1, "points": 2, "points_of_attack": 1},
    "interpretability_aware": {"steps": 1, "others": "likeliest"},
    "trades": {"steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", CARDS)
def test_every_promise_is_kept(name: str, promise: str) -> None:
    check_training(CARDS[name], options=SETTINGS.get(name), promises=[promise])


def in_place(model: Any, data: Any, *, plan: Plan, generator: Any = None) -> Any:
    """Return the model that was given, not a copy, and learn nothing."""
    return model


def from_the_global_state(model: Any, data: Any, *, plan: Plan, generator: Any = None) -> Any:
    """Add noise that no generator determines."""

    def loss(step: Any) -> torch.Tensor:
        noise = torch.rand(step.x.shape, generator=NOISE)
        return F.cross_entropy(step.model(step.x + 0.1 * noise), step.y, reduction="none")

    return Training("mine", model, data, plan, generator, {}).run(loss)


NOISE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("training", "promise"), [(in_place, "learns"), (from_the_global_state, "resumes"), (in_place, "bad_input")]
)
def test_a_broken_promise_is_found(training: Any, promise: str) -> None:
    with pytest.raises(AssertionError, match=f"{training.__name__} breaks .*{promise}"):
        check_training(training, promises=[promise])


def test_a_frozen_weight_stays_frozen_afterwards() -> None:
    model = uf.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    model.module[1].bias.requires_grad_(False)
    x, y = torch.tensor([[0.0], [1.0]]).expand(2, 4).reshape(2, 1, 2, 2).clone(), torch.tensor([0, 1])
    made = uf.training.standard(model, (x, y), plan=Plan(epochs=1))
    assert [p.requires_grad for p in made.parameters()] == [True, False]
    assert not torch.equal(made.module[1].weight, model.module[1].weight)
