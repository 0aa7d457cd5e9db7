"""What every attack of the catalogue promises; a new attack is tested here without a line of its own."""

from __future__ import annotations

from typing import Any

import pytest

import underfire as uf
from underfire.testing import check_attack
from underfire.testing.attack import PROMISES

#: An attack on one kind of model only, which its card names, has tests of its own.
CARDS = {card.name: card for card in uf.cards("attack") if not card.facts.models}
#: What an attack must be given, such as the interpreter of one on explanations, and settings that keep the tests quick.
SETTINGS: dict[str, dict[str, Any]] = {
    "adv2": {"interpreter": uf.interpreters.cam, "steps": 8, "warm_steps": 3},
    "adversarial_patch": {"steps": 60},
    "adversarial_transformation": {"held_out": False, "steps": 25, "width": 8, "step_size": 0.01},
    "apgd": {"steps": 20},
    "autoattack": {"steps": 20, "queries": 100},
    "boundary": {"queries": 300},
    "carlini_wagner": {"steps": 30, "binary_search_steps": 4, "step_size": 0.05, "c": 1.0},
    "ead": {"steps": 60, "binary_search_steps": 6},
    "eot": {"steps": 10, "samples": 4},
    "fab": {"steps": 20},
    "finite_differences": {"queries": 1000},
    "fooling_images": {"steps": 30, "population": 40},
    "hop_skip_jump": {"queries": 500},
    "lbfgs": {"steps": 30, "binary_search_steps": 6, "candidates": 1},
    "nes": {"queries": 1000, "samples": 20},
    "one_pixel": {"population": 50, "steps": 10},
    "sigma_zero": {"steps": 60},
    "spsa": {"queries": 1000, "samples": 20},
    "square": {"queries": 200},
    "substitute": {"queries": 60, "epochs": 5},
    "uap": {"held_out": False, "steps": 4},  # of five images there is little to learn about others
    "zoo": {"queries": 2600},
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", CARDS)
def test_every_attack_keeps_its_promises(name: str, promise: str) -> None:
    check_attack(CARDS[name], options=SETTINGS.get(name), promises=[promise])
