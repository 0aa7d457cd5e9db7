"""What every defence of the catalogue promises, and that a broken promise is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from underfire.defenses import Defended, Preprocessing
from underfire.defenses.comdefend import CompressionNetwork
from underfire.defenses.hgd import Denoiser
from underfire.learning import initialised
from underfire.testing import check_defense
from underfire.testing.defense import PROMISES
from underfire.testing.models import toy_classifier


def other(seed: int) -> uf.Classifier:
    """Return another version of the small network on which defences are checked."""
    model, generator = toy_classifier(dtype=torch.float64), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


CARDS = {card.name: card for card in uf.cards("defense")}
#: What a defence must be given, and what makes it quick.
SETTINGS: dict[str, dict[str, Any]] = {
    "bit_depth": {"bits": 4},
    "comdefend": {"weights": initialised(lambda: CompressionNetwork(3, 2), 0)},
    "crop_ensemble": {"share": 0.7, "samples": 3},
    "hgd": {"weights": initialised(lambda: Denoiser(3, 2), 0)},
    "n_version": {"versions": (other(1), other(2))},
    "nips_r3": {"versions": (other(1),)},
    "randomised_smoothing": {"samples": 20},
    "total_variation": {"steps": 20},
    "non_local_means": {"search": 3, "template": 3, "strength": 20.0},
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", CARDS)
def test_every_promise_is_kept(name: str, promise: str) -> None:
    check_defense(CARDS[name], options=SETTINGS.get(name), promises=[promise])


def forgets(model):
    """Defend another model than the one that was given."""
    return Defended(Preprocessing(uf.Classifier(model.module), lambda x, _: x, forgets))


def draws_from_the_global_state(model):
    """Add noise."""
    noise = torch.default_generator
    return Defended(
        Preprocessing(
            model, lambda x, _: x + torch.rand(1, generator=noise, dtype=x.dtype), draws_from_the_global_state
        )
    )


def looks_at_the_batch(model):
    """Subtract the mean of the batch."""
    return Defended(Preprocessing(model, lambda x, _: x - x.mean(), looks_at_the_batch))


def detaches(model):
    """Hide the gradient."""
    return Defended(Preprocessing(model, lambda x, _: x.detach().round(), detaches))


@pytest.mark.parametrize(
    ("defense", "promise"),
    [
        (forgets, "a_classifier"),
        (draws_from_the_global_state, "left_as_found"),
        (draws_from_the_global_state, "random_as_the_card_says"),
        (looks_at_the_batch, "batch_equals_singles"),
        (detaches, "gradient_as_the_card_says"),
        (detaches, "gradient_through"),
        (detaches, "bad_input"),
    ],
)
def test_a_broken_promise_is_found(defense: Any, promise: str) -> None:
    with pytest.raises(AssertionError, match=f"{defense.__name__} breaks .*{promise}"):
        check_defense(defense, promises=[promise])
