"""ADV² on every differentiable interpreter of the catalogue: its map is nearer to the clean one than plain PGD's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import underfire as uf
from tests.networks import build_network, rand
from underfire.data import Dataset
from underfire.measures.maps import map_l2
from underfire.testing.interpreter import KnownImages
from underfire.testing.models import toy_transformer

#: Without max-pooling, the map of a deconvolution depends on the class alone, so that no attack can move it.
FIXED = "deconvnet"
DIFFERENTIABLE = [card for card in uf.cards("interpreter") if card.facts.differentiable and card.name != FIXED]
#: What makes a method short on images of 12 x 12 pixels.
SETTINGS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 6},
    "lime": {"superpixels": "grid", "segments": 9, "samples": 40},
    "occlusion": {"patch": 4, "stride": 4},
    "rise": {"samples": 30, "cells": 3, "shown": 0.5},
    "smooth_grad": {"samples": 4},
    "smooth_grad_cam_pp": {"samples": 3},
}


def attack(card: uf.Card) -> tuple[Tensor, Tensor, Tensor]:
    """Return which images both attacks fool, and the map losses of PGD and of ADV², `[B]` each."""
    model, x = build_network("relu"), rand(6, 3, 12, 12) if not card.facts.per_pixel else rand(6, 3, 6, 6)
    longer = 1
    if card.facts.models == "transformer":
        model, x, longer = toy_transformer(), rand(6, 3, 9, 12), 3
    interpreter = card.with_options(**SETTINGS.get(card.name, {}))
    if card.fitted:
        interpreter.fit(model, Dataset("known images", KnownImages()), selector_steps=20, steps=3, batch_size=8)
    y, goal = model(x).detach().topk(2, dim=1).indices.unbind(1)
    benign = interpreter(model, x, y)
    options: dict[str, Any] = {"goal": goal, "eps": 0.15}
    plain = uf.attacks.pgd(model, x, y, steps=20 * longer, step_size=0.015, random_start=False, keep="last", **options)
    both = uf.attacks.adv2(
        model,
        x,
        y,
        interpreter=interpreter,
        steps=12 * longer,
        warm_steps=8 * longer,
        step_size=0.015,
        confidence=0.4,
        **options,
    )
    fooled = (model(both).argmax(1) == goal) & (model(plain).argmax(1) == goal)
    gaps = [map_l2(benign, interpreter(model, x_adv, goal)).square() for x_adv in (plain, both)]
    return fooled, *gaps


@pytest.mark.slow
@pytest.mark.parametrize("card", DIFFERENTIABLE, ids=lambda card: card.name)
def test_the_map_is_nearer_than_with_pgd(card: uf.Card) -> None:
    fooled, plain, both = attack(card)
    assert fooled.float().mean() >= 0.6
    assert both[fooled].mean() < 0.9 * plain[fooled].mean()


def test_a_map_that_ignores_the_image_stays() -> None:
    _, plain, both = attack(uf.find("interpreter", FIXED))
    assert torch.allclose(plain, both)
