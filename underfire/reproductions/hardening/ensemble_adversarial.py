"""Train an MNIST network on the FGSM images of other networks, and measure its robustness to black-box attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from underfire import models
from underfire.attacks import mi_fgsm
from underfire.measures.statistics import rate
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Attack, Hits, Trial, accuracy, right
from underfire.reproductions.hardening.digits import EPS, PLAN, SIZES, TEST, Digits, Sizes
from underfire.reproductions.hardening.networks import first_images
from underfire.reproductions.hardening.single_step_masking import FGSM, PGD, PLAIN, RAND, SINGLE, attacks
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, above, as_results, as_table

ENSEMBLE, WORST, MOMENTUM = "ensemble-trained", "worst black-box attack", "MI-FGSM"

_HOW = """The networks under attack have two convolutions and two linear layers, and are trained on {train} images of
MNIST: *undefended* and *FGSM-trained* for {epochs:g} epochs, *ensemble-trained* for twice as many, as in the paper, on
clean images and on FGSM of one of three networks, drawn for each batch: itself, one with pooled convolutions, and one
of four linear layers. Black-box attacks know none of these: they are made on a network of four convolutions and three
linear layers that was trained for {held_out:g} epochs. Every attack has the size {eps:g} in L∞; PGD has {steps} steps,
MI-FGSM 10. *{worst}* counts an image as correct if none of the four changes it. Accuracy in per cent on the first
{images} test images, with its 95 % Clopper-Pearson interval."""

_WHY = """The network under training cannot weaken attacks that are made on others, so that the single step stays an
attack. The training is for attacks of this kind: the white-box rows show what an attacker who knows the network still
finds."""


def run(setting: Setting) -> Outcome:
    """Train the networks where they are missing, and attack them through a network that none of them has seen."""
    sizes = SIZES[setting.scale]
    digits = Digits.of(setting, sizes)
    named = {PLAIN: digits.undefended(), SINGLE: digits.single_step(), ENSEMBLE: digits.ensemble()}
    source = digits.held_out()
    batch = first_images(setting, TEST, sizes.images)
    facts = asdict(sizes) | {name: models.fingerprint(model) for name, model in {**named, "source": source}.items()}
    trial = Trial(batch, Store.of(setting, "ensemble-adversarial", facts), setting.progress)
    own = attacks(sizes)
    black: dict[str, Attack] = {
        FGSM: own[FGSM],
        RAND: own[RAND],
        MOMENTUM: partial(mi_fgsm, eps=EPS, steps=10),
        PGD: own[PGD],
    }
    found: dict[str, dict[str, Hits]] = {}
    found["clean"] = {label: trial.correct(f"clean, {label}", own["clean"], model) for label, model in named.items()}
    for name, attack in black.items():
        # the images are made once, for all networks
        made = trial.images(f"black-box {name}", attack, source)
        found[f"black-box {name}"] = {label: right(model, made) for label, model in named.items()}
    transferred = [of for name, of in found.items() if name.startswith("black-box")]
    found[WORST] = {label: np.prod([of[label] for of in transferred], axis=0) for label in named}
    for name in (FGSM, RAND, PGD):
        found[f"white-box {name}"] = {
            label: trial.correct(f"white-box {name}, {label}", own[name], model) for label, model in named.items()
        }
    return outcome(setting, sizes, found)


def outcome(setting: Setting, sizes: Sizes, found: Mapping[str, Mapping[str, Hits]]) -> Outcome:
    """Return the outcome, from which images are correct, by attack and network."""
    claims = decided(found)
    spec: dict[str, Any] = {"data": "MNIST, the first images of each part", **asdict(sizes), "eps": EPS}
    return Outcome(
        title="Ensemble adversarial training on MNIST against black-box attacks",
        source="Tramer et al., Ensemble Adversarial Training: Attacks and Defenses, ICLR 2018, whose networks and "
        "schedule are larger: its findings are compared, not its figures",
        spec=spec | {"plan": repr(PLAN), "seed": setting.seed},
        columns=("attack", *(f"accuracy, {label}" for label in found["clean"])),
        rows=[[name, *map(accuracy, of.values())] for name, of in found.items()],
        notes=[_HOW.format(**asdict(sizes), eps=EPS, worst=WORST), as_table(claims), _WHY],
        results={
            "accuracy": {name: {label: rate(hits) for label, hits in of.items()} for name, of in found.items()},
            "claims": as_results(claims),
        },
    )


def decided(found: Mapping[str, Mapping[str, Hits]]) -> list[Decision]:
    """Return whether the ensemble makes the network robust to black-box attacks, and whether it is robust otherwise."""
    fooled = {name: {label: 1 - hits for label, hits in of.items()} for name, of in found.items()}
    names = [*(name for name in fooled if name.startswith("black-box")), WORST]
    claims = [
        above(
            f"{name} fools the {label} network more often than the {ENSEMBLE}",
            fooled[name][label],
            fooled[name][ENSEMBLE],
        )
        for label in (PLAIN, SINGLE)
        for name in names
        if label == SINGLE or name == WORST
    ]
    weak = f"{ENSEMBLE}: white-box {PGD} finds more than the {WORST}"
    return [*claims, above(weak, fooled[f"white-box {PGD}"][ENSEMBLE], fooled[WORST][ENSEMBLE])]
