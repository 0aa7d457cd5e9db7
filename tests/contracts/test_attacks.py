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
    "acg": {"steps": 20},
    "adv2": {"interpreter": uf.interpreters.cam, "steps": 8, "warm_steps": 3},
    "adv2_black_box": {"interpreter": uf.interpreters.cam, "queries": 300, "samples": 10},
    "adv2_ensemble": {"interpreters": ("cam", "gradient"), "steps": 8, "warm_steps": 3},
    "adv2_squeezing": {
        "interpreter": uf.interpreters.cam,
        "squeezers": ("bit_depth_4", "median_2"),
        "scheme": "paper",
        "squeezed_steps": 3,
        "steps": 8,
        "warm_steps": 3,
    },
    "admix": {"steps": 5, "copies": 2, "samples": 2},
    "adversarial_patch": {"steps": 30},
    "adversarial_transformation": {"held_out": False, "steps": 25, "width": 8, "step_size": 0.01},
    "apgd": {"steps": 20},
    "at_si_ni_ti_dim": {"outer_steps": 2, "inner_steps": 2, "copies": 2, "probability": 0.0},
    "atta": {"outer_steps": 2, "inner_steps": 2},
    "autoattack": {"steps": 8, "queries": 40},
    "boundary": {"queries": 200},
    "bsr": {"steps": 5, "samples": 3},
    "carlini_wagner": {"steps": 20, "binary_search_steps": 3, "step_size": 0.05, "c": 1.0},
    "corner_cases": {"strengths": 2},
    "ddn": {"steps": 40},
    "ead": {"steps": 60, "binary_search_steps": 5},
    "ensemble_transfer": {"steps": 20},
    "eot": {"steps": 8, "samples": 3},
    "explanation_and_prediction": {"interpreter": uf.interpreters.cam, "steps": 5, "warm_steps": 5},
    "explanation_only": {"interpreter": uf.interpreters.cam, "steps": 5},
    "explanation_only_black_box": {"interpreter": uf.interpreters.cam, "queries": 50, "samples": 5},
    "fab": {"steps": 10},
    "finite_differences": {"queries": 1000},
    "fmn": {"steps": 40},
    "fooling_images": {"steps": 30, "population": 40},
    "hop_skip_jump": {"queries": 500},
    "lbfgs": {"steps": 30, "binary_search_steps": 6, "candidates": 1},
    "logit_attack": {"steps": 10, "probability": 0.0},
    "nes": {"queries": 1000, "samples": 20},
    "one_pixel": {"population": 50, "steps": 10},
    "ops": {"steps": 5, "perturbations": 2, "samples": 2},
    "pgd": {"steps": 20},
    "pgn": {"steps": 5, "samples": 3},
    "sia": {"steps": 5, "samples": 3},
    "sigma_zero": {"steps": 40},
    "spsa": {"queries": 1000, "samples": 20},
    "square": {"queries": 100},
    "ssm": {"steps": 5, "samples": 3},
    "st_adv": {"steps": 40},
    "substitute": {"queries": 40, "epochs": 3},
    "uap": {"held_out": False, "steps": 4},  # of five images there is little to learn about others
    "vmi_fgsm": {"steps": 5, "samples": 5},
    "vni_fgsm": {"steps": 5, "samples": 3},
    "zoo": {"queries": 2600},
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SETTINGS)) for n in CARDS])
def test_every_attack_keeps_its_promises(name: str, promise: str) -> None:
    check_attack(CARDS[name], options=SETTINGS.get(name), promises=[promise])
