"""The subject and the options with which each attack is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from underfire.catalog import Card
from underfire.interpreters import cam

STEPS, QUERIES = 50, 3000  # larger defaults are reduced to these, unless SETTINGS says otherwise


@dataclass(frozen=True)
class Setting:
    """The subject and the options with which an attack is shown.

    Attributes:
        on: subjects in order of preference; the first that exists and that the attack accepts is shown.
        options: the options of the attack that differ from its defaults.
    """

    on: tuple[str, ...] = ("photographs", "digits")
    options: Mapping[str, Any] = field(default_factory=dict)


_DIGITS = ("digits",)
_SEARCH = {"binary_search_steps": 3}
#: Settings that differ from the default: white-box attacks on photographs, black-box and universal ones on digits.
SETTINGS: dict[str, Setting] = {
    "admix": Setting(options={"samples": 1}),
    "adv2": Setting(options={"interpreter": cam, "warm_steps": 25}),
    "adv2_black_box": Setting(on=_DIGITS, options={"interpreter": cam, "eps": 0.1, "queries": 3000}),
    "adv2_ensemble": Setting(options={"interpreters": ("cam", "gradient"), "warm_steps": 25}),
    "adv2_squeezing": Setting(options={"interpreter": cam, "warm_steps": 25, "squeezed_steps": 25}),
    "adversarial_patch": Setting(options={"eps": 0.15}),
    "adversarial_transformation": Setting(on=_DIGITS, options={"eps": 0.1, "steps": 200}),
    "affine": Setting(options={"angles": 11, "values": 3}),
    "at_si_ni_ti_dim": Setting(options={"outer_steps": 3, "inner_steps": 3}),
    "atta": Setting(options={"outer_steps": 3, "inner_steps": 3}),
    "autoattack": Setting(options={"queries": 1000}),
    "carlini_wagner": Setting(options={"steps": 50, **_SEARCH}),
    "corner_cases": Setting(),
    "decision_tree": Setting(on=("tree",)),
    "ead": Setting(options={"steps": 50, "c": 1.0, **_SEARCH}),
    "ensemble_transfer": Setting(on=("ensemble",)),
    "eot": Setting(options={"steps": 20, "samples": 3}),
    "explanation_and_prediction": Setting(options={"interpreter": cam}),
    "explanation_only": Setting(options={"interpreter": cam}),
    "explanation_only_black_box": Setting(on=_DIGITS, options={"interpreter": cam, "eps": 0.1, "queries": 3000}),
    "fgvm": Setting(options={"eps": 5.0}),
    "fooling_images": Setting(on=_DIGITS, options={"encoding": "cppn", "steps": 100, "population": 50}),
    "jsma": Setting(on=_DIGITS),
    "lbfgs": Setting(options={"steps": 20, "candidates": 1, **_SEARCH}),
    "nes": Setting(on=_DIGITS, options={"eps": 16 / 255, "queries": 6000}),
    "one_pixel": Setting(on=_DIGITS, options={"eps": 5}),
    "ops": Setting(options={"perturbations": 3, "samples": 3}),
    "photometric": Setting(options={"values": 5, "eps": 0.5, "brightness": 0.3}),
    "random_noise": Setting(),
    "sgm": Setting(on=("residual",)),
    "square": Setting(options={"queries": 1000}),
    "substitute": Setting(on=_DIGITS),
    "svre": Setting(on=("ensemble",)),
    "uap": Setting(on=_DIGITS, options={"eps": 24 / 255}),
    "zoo": Setting(on=_DIGITS, options={"queries": 20_000}),
}
#: Attacks that evaluate the model many times in each step take this many on a photograph.
_SAMPLES = 5
for _name in ("bsr", "pgn", "sia", "ssm", "vmi_fgsm", "vni_fgsm"):
    SETTINGS[_name] = Setting(options={"samples": _SAMPLES})


def setting_of(card: Card) -> Setting:
    """Return the setting of an attack from SETTINGS, completed from its card."""
    large = card.facts.knowledge == "white-box" and not card.facts.universal
    chosen = SETTINGS.get(card.name, Setting() if large else Setting(on=_DIGITS))
    options = dict(chosen.options)
    # reduce the defaults that take long; a search over a grid takes no steps
    limits = {"queries": QUERIES} if "search" in card.options else {"queries": QUERIES, "steps": STEPS}
    for name, most in limits.items():
        usual = card.options[name].default if name in card.options else None
        if isinstance(usual, int) and usual > most:
            options.setdefault(name, most)
    return Setting(chosen.on, options)
