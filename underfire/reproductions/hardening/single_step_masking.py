"""Train an MNIST network on FGSM, and show that its white-box gradient misleads: transfer and RAND+FGSM find more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from underfire import models
from underfire.attacks import fgsm, pgd, rand_fgsm
from underfire.measures.statistics import bootstrap_mean, rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.adv2.table import show
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Attack, Hits, Trial, accuracy, clean, right
from underfire.reproductions.hardening.digits import EPS, PLAN, SIZES, TEST, Digits, Sizes
from underfire.reproductions.hardening.networks import first_images
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, above, as_results, as_table

FGSM, RAND, PGD = "FGSM", "RAND+FGSM", "PGD"
OTHERS = f"{FGSM} of another network", f"{PGD} of another network"
SINGLE, MANY, PLAIN = "FGSM-trained", "PGD-trained", "undefended"

_HOW = """All networks have two convolutions and two linear layers, and are trained for {epochs:g} epochs on {train}
images of MNIST: *undefended* on clean images, *FGSM-trained* on the mean of the losses of clean images and of FGSM,
*PGD-trained* on PGD of 7 steps. The other network, which the black-box attacks know, is an undefended one with other
layers. Every attack has the size {eps:g} in L∞, RAND+FGSM spends half of it at random, PGD has {steps} steps. Accuracy
in per cent on the first {images} test images, with its 95 % Clopper-Pearson interval."""

_WHY = """An attack that knows the network should find at least what an attack on another network finds. If it finds
less, the network has not become robust: it has learned to make the single step miss. That is the degenerate minimum of
single-step training: the loss at the step's end is small, and the largest loss of the ball is not."""


def run(setting: Setting) -> Outcome:
    """Train the networks where they are missing, and attack them with and without their own gradient."""
    sizes = SIZES[setting.scale]
    digits = Digits.of(setting, sizes)
    named = {PLAIN: digits.undefended(), SINGLE: digits.single_step(), MANY: digits.many_steps()}
    other = digits.pooled()
    batch = first_images(setting, TEST, sizes.images)
    facts = asdict(sizes) | {name: models.fingerprint(model) for name, model in {**named, "other": other}.items()}
    trial = Trial(batch, Store.of(setting, "single-step-masking", facts), setting.progress)
    found: dict[str, dict[str, Hits]] = {}
    own = attacks(sizes)
    for name, attack in own.items():
        found[name] = {label: trial.correct(f"{name}, {label}", attack, model) for label, model in named.items()}
    for name, attack in zip(OTHERS, (own[FGSM], own[PGD]), strict=True):
        made = trial.images(name, attack, other)
        found[name] = {label: right(model, made) for label, model in named.items()}
    # what an undefended network of other layers makes of the single steps of each network
    seen = {
        label: trial.correct(f"FGSM of {label}, other", own[FGSM], model, victim=other)
        for label, model in named.items()
    }
    losses = {
        label: {name: _losses(model, trial.images(f"{name} of {label}", own[name], model)) for name in (FGSM, PGD)}
        for label, model in named.items()
    }
    return outcome(setting, sizes, found, seen, losses)


def attacks(sizes: Sizes) -> dict[str, Attack]:
    """Return the attacks that know the network, by name."""
    return {
        "clean": clean,
        FGSM: partial(fgsm, eps=EPS),
        RAND: partial(rand_fgsm, eps=EPS),
        PGD: partial(pgd, eps=EPS, steps=sizes.steps, step_size=2.5 * EPS / sizes.steps),
    }


def _losses(model: Classifier, batch: Batch) -> Hits:
    """Return the cross-entropy of each image, `[n]`."""
    with torch.no_grad():
        found: Hits = F.cross_entropy(model(batch.x), batch.y, reduction="none").double().cpu().numpy()
    return found


def outcome(
    setting: Setting,
    sizes: Sizes,
    found: Mapping[str, Mapping[str, Hits]],
    seen: Mapping[str, Hits],
    losses: Mapping[str, Mapping[str, Hits]],
) -> Outcome:
    """Return the outcome.

    Args:
        setting: the setting of the experiment.
        sizes: the size of the run.
        found: which images are correct, by attack and network.
        seen: which images the other network classifies correctly after FGSM, by the network that FGSM knew.
        losses: the cross-entropy of each image, by network and attack.
    """
    claims = decided(found, seen)
    means = {label: {name: bootstrap_mean(values) for name, values in of.items()} for label, of in losses.items()}
    minimum = "; ".join(
        f"{label} {show(of[FGSM])} after FGSM, {show(of[PGD])} after PGD" for label, of in means.items()
    )
    easy = "; ".join(f"{label} {accuracy(hits)}" for label, hits in seen.items())
    spec: dict[str, Any] = {"data": "MNIST, the first images of each part", **asdict(sizes), "eps": EPS}
    return Outcome(
        title="Training on a single step masks the gradient (MNIST)",
        source="Tramer et al., Ensemble Adversarial Training: Attacks and Defenses, ICLR 2018, whose networks and "
        "schedule are larger: its findings are compared, not its figures",
        spec=spec | {"plan": repr(PLAN), "seed": setting.seed},
        columns=("attack", *(f"accuracy, {label}" for label in found[FGSM])),
        rows=[[name, *map(accuracy, of.values())] for name, of in found.items()],
        notes=[
            _HOW.format(**asdict(sizes), eps=EPS),
            as_table(claims),
            f"Mean cross-entropy, with its 95 % bootstrap interval: {minimum}.",
            f"Accuracy of the other network on the FGSM images of each network: {easy}.",
            _WHY,
        ],
        results={
            "accuracy": {name: {label: rate(hits) for label, hits in of.items()} for name, of in found.items()},
            "seen by another": {label: rate(hits) for label, hits in seen.items()},
            "cross-entropy": means,
            "claims": as_results(claims),
        },
    )


def decided(found: Mapping[str, Mapping[str, Hits]], seen: Mapping[str, Hits]) -> list[Decision]:
    """Return whether the single step is masked on the network that was trained on it, and not on the others."""
    fooled = {name: {label: 1 - hits for label, hits in of.items()} for name, of in found.items()}
    claims = [
        above(f"{SINGLE}: {name} finds more than white-box FGSM", fooled[name][SINGLE], fooled[FGSM][SINGLE])
        for name in (RAND, *OTHERS, PGD)
    ]
    claims += [
        above(f"{label}: white-box FGSM finds more than {OTHERS[0]}", fooled[FGSM][label], fooled[OTHERS[0]][label])
        for label in (PLAIN, MANY)
    ]
    easier = f"FGSM of the undefended network fools another one more often than FGSM of the {SINGLE} network"
    return [*claims, above(easier, 1 - seen[PLAIN], 1 - seen[SINGLE])]
