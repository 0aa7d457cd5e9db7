"""What every detector of the catalogue promises, and that a broken promise is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from underfire.testing import check_detector
from underfire.testing.detector import PROMISES

CARDS = {card.name: card for card in uf.cards("detector")}
#: What makes a detector quick.
SETTINGS: dict[str, dict[str, Any]] = {
    "bayesian_uncertainty": {"samples": 4},
    "feature_squeezing": {"squeezers": ("bit_depth_3", "median_2", "non_local_means_3_3_8")},
    "kernel_density_and_uncertainty": {"samples": 4},
    "lid": {"k": 5, "samples": 12},
    "ml_loo": {"reuse": False},
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", CARDS)
def test_every_promise_is_kept(name: str, promise: str) -> None:
    check_detector(CARDS[name], options=SETTINGS.get(name), promises=[promise])


class Mean:
    """Scores the mean of the pixels; the classes below break one promise each."""

    def fit(self, model, clean, attacked=None):
        self.fitted = True
        return self

    def score(self, model, x):
        return x.detach().mean((1, 2, 3))


class ReturnsNothing(Mean):
    def fit(self, model, clean, attacked=None):
        super().fit(model, clean)


class LooksAtTheBatch(Mean):
    def score(self, model, x):
        return super().score(model, x) - x.mean()


class Forgets(Mean):
    def score(self, model, x):
        return x.mean((1, 2, 3))


class DrawsFromTheGlobalState(Mean):
    def score(self, model, x):
        return super().score(model, x) + torch.rand(1, generator=torch.default_generator, dtype=x.dtype)


@pytest.mark.parametrize(
    ("detector", "promise"),
    [
        (ReturnsNothing, "shape_and_dtype"),
        (Mean, "fit_comes_first"),
        (LooksAtTheBatch, "batch_equals_singles"),
        (Forgets, "differentiable_as_the_card_says"),
        (DrawsFromTheGlobalState, "model_left_as_found"),
        (DrawsFromTheGlobalState, "deterministic"),
        (Mean, "bad_input"),
    ],
)
def test_a_broken_promise_is_found(detector: Any, promise: str) -> None:
    with pytest.raises(AssertionError, match=f"{detector.__name__} breaks .*{promise}"):
        check_detector(detector, promises=[promise])
