"""Attacks of every kind go through defences without a gradient, and through random ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import underfire as uf
from underfire.defenses import Defended, through
from underfire.testing.models import toy_batch, toy_classifier

ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {"eps": 0.1},
    "pgd": {"eps": 0.1, "steps": 4},
    "mi_fgsm": {"eps": 0.1, "steps": 4},
    "apgd": {"eps": 0.1, "steps": 5},
    "ddn": {"steps": 8},
    "fmn": {"steps": 8},
    "deepfool": {"steps": 4},
    "carlini_wagner": {"steps": 4, "binary_search_steps": 2},
    "st_adv": {"steps": 4},
    "uap": {"eps": 0.2, "steps": 2, "held_out": False},
    "square": {"eps": 0.2, "queries": 10},
    "nes": {"eps": 0.2, "queries": 60, "samples": 6},
    "adv2": {"interpreter": uf.interpreters.grad_cam, "eps": 0.2, "steps": 2, "warm_steps": 2},
}
DEFENSES = {
    "jpeg": uf.defenses.jpeg(toy_classifier(), quality=60),
    "random": uf.defenses.defend(
        toy_classifier(), [{"name": "total_variation", "steps": 5}, {"name": "resize_and_pad"}]
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", DEFENSES)
def test_an_attack_goes_through(name: str, attack: str) -> None:
    made, x = DEFENSES[name], toy_batch(n=3, dtype=torch.float32)
    assert isinstance(made, Defended)
    y = made.redraw(0)(x).argmax(1)
    found = [uf.find("attack", attack)(through(made, samples=2), x, y, **ATTACKS[attack]) for _ in range(2)]
    assert found[0].shape == x.shape and torch.isfinite(found[0]).all()
    assert torch.equal(*found), "the draws of the attacker must not depend on earlier attacks"
    assert attack in ("ddn", "fmn", "deepfool", "carlini_wagner", "st_adv", "square") or not torch.equal(found[0], x)


@pytest.mark.parametrize("interpreter", ["gradient", "grad_cam", "score_cam", "smooth_grad", "occlusion"])
def test_a_random_defence_is_explained(interpreter: str) -> None:
    x = toy_batch(n=3, dtype=torch.float32)
    form = through(DEFENSES["random"], samples=2)
    maps = uf.find("interpreter", interpreter)(form, x, torch.tensor([0, 1, 2]))
    assert len(maps) == 3 and torch.isfinite(maps).all()
