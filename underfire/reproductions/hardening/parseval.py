"""Train Parseval networks on MNIST and CIFAR-10: their singular values, and their accuracy over attack sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from underfire import models, training
from underfire.attacks import fgsm, pgd
from underfire.audit.sizes import size
from underfire.measures.statistics import rate
from underfire.model import Classifier
from underfire.records import Batch
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Attack, Hits, Trial, accuracy, clean
from underfire.reproductions.hardening.networks import Workshop, first_images, multilayer
from underfire.reproductions.hardening.pictures import curves, histograms
from underfire.reproductions.registry import Outcome, Setting, table
from underfire.reproductions.transfer.claims import above, as_results, as_table
from underfire.training import Plan
from underfire.training.parseval import singular_values

PLAN = Plan(rate=0.05, weight_decay=5e-4)
BETA = 0.05
USUAL, FRAMES, STEPPED = "usual", "Parseval", "FGSM-trained"


@dataclass(frozen=True)
class Images:
    """A data set, and the sizes of the attacks on its networks.

    Attributes:
        train, test: the URIs of its parts, with `{root}` for the folder of real data.
        inputs: the number of values of an image.
        radii: the sizes of the attacks, in L∞.
        trained_at: the size of the attack in training on FGSM.
    """

    train: str
    test: str
    inputs: int
    radii: tuple[float, ...]
    trained_at: float


DATA = {
    "MNIST": Images(
        "mnist:{root}/mnist?split=train",
        "mnist:{root}/mnist?split=test",
        784,
        (0.01, 0.02, 0.05, 0.1, 0.15, 0.2),
        0.1,
    ),
    "CIFAR-10": Images(
        "parquet:{root}/cifar10-train.parquet",
        "parquet:{root}/cifar10-test.parquet",
        3072,
        (0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 6 / 255, 8 / 255),
        2 / 255,
    ),
}


@dataclass(frozen=True)
class Sizes:
    """The size of a run.

    Attributes:
        train: the largest number of training images.
        epochs: passes over them.
        width: units of each of the four hidden layers.
        images: the number of attacked test images.
        steps: steps of PGD.
    """

    train: int
    epochs: float
    width: int
    images: int
    steps: int = 20


SIZES = {
    "quick": Sizes(256, 2, 32, 20, 2),
    "default": Sizes(60_000, 6, 512, 1000),
    "full": Sizes(60_000, 50, 2048, 10_000),
}

_HOW = """The networks have four hidden layers of {width} units with ReLU, and are trained for {epochs:g} epochs.
*Usual* is trained with weight decay, *Parseval* without it and with a retraction of {beta:g} after each step,
*FGSM-trained* like the usual one on the mean of the losses of clean images and of FGSM (of size {trained}). The
schedule, the width and the constants are ours; those of the paper are not in the text that we have. Accuracy in per
cent on the first {images} test images, with its 95 % Clopper-Pearson interval; PGD has {steps} steps. SNR is the mean
of 20 log10(|x| / |δ|) in dB over the images, for FGSM on the usual network."""

_BOUND = """The product of the largest singular values bounds the Lipschitz constant of a network in L2. With singular
values of 1 the bound is 1: no layer enlarges a perturbation. It is no bound on the margin, which shrinks too."""


@dataclass(frozen=True)
class Measured:
    """The measurements on one data set.

    Attributes:
        spectra: the singular values of each layer, by network and layer.
        correct: which images are correct, by attack, radius and network; radius 0 is clean.
        snr: the mean signal-to-noise ratio in dB, by radius.
    """

    spectra: Mapping[str, Mapping[str, Tensor]]
    correct: Mapping[str, Mapping[float, Mapping[str, Hits]]]
    snr: Mapping[float, float]


def run(setting: Setting) -> Outcome:
    """Train the networks where they are missing, and attack them at all radii."""
    sizes = SIZES[setting.scale]
    return outcome(setting, sizes, {name: measure(setting, sizes, name, images) for name, images in DATA.items()})


def measure(setting: Setting, sizes: Sizes, name: str, images: Images) -> Measured:
    """Return the singular values of the networks of one data set, and which images they classify correctly."""
    named = networks(setting, sizes, name, images)
    batch = first_images(setting, images.test, sizes.images)
    facts = asdict(sizes) | {label: models.fingerprint(model) for label, model in named.items()}
    trial = Trial(batch, Store.of(setting, f"parseval-{name}", facts), setting.progress, part=500)
    found: dict[str, dict[float, dict[str, Hits]]] = {"FGSM": {}, "PGD": {}}
    snr = {}
    for radius in (0.0, *images.radii):
        pair: dict[str, Attack] = {
            "FGSM": partial(fgsm, eps=radius),
            "PGD": partial(pgd, eps=radius, steps=sizes.steps, step_size=2.5 * radius / sizes.steps),
        }
        for attack, function in pair.items():
            found[attack][radius] = {
                label: trial.correct(f"{attack} {radius:.5f}, {label}", function if radius else clean, model)
                for label, model in named.items()
            }
        if radius:
            snr[radius] = noise(batch, trial.images(f"FGSM {radius:.5f}", pair["FGSM"], named[USUAL]))
    spectra = {label: {key: one.cpu() for key, one in singular_values(model).items()} for label, model in named.items()}
    return Measured(spectra, found, snr)


def networks(setting: Setting, sizes: Sizes, name: str, images: Images) -> dict[str, Classifier]:
    """Return the usual network, the Parseval network and the one that was trained on FGSM."""
    workshop = Workshop.of(setting, images.train, sizes.train)
    build = partial(multilayer, images.inputs, sizes.width)
    plan, free = replace(PLAN, epochs=sizes.epochs), replace(PLAN, epochs=sizes.epochs, weight_decay=0.0)
    stepped = {"attack": "fgsm", "eps": images.trained_at, "clean_weight": 0.5}
    return {
        USUAL: workshop.network(f"{name}-linear-standard", build, training.standard, plan),
        FRAMES: workshop.network(f"{name}-linear-parseval", build, training.parseval, free, beta=BETA),
        STEPPED: workshop.network(f"{name}-linear-fgsm", build, training.adversarial, plan, **stepped),
    }


def noise(clean_images: Batch, attacked: Batch) -> float:
    """Return the mean of 20 log10(|x| / |δ|), in dB."""
    signal, change = (t.flatten(1).double().norm(dim=1) for t in (clean_images.x, attacked.x - clean_images.x))
    return float((20 * (signal / change).log10()).mean())


def outcome(setting: Setting, sizes: Sizes, found: Mapping[str, Measured]) -> Outcome:
    """Return the outcome, from what each data set gave."""
    rows, claims = [], []
    for name, one in found.items():
        for attack, of in one.correct.items():
            for radius, hits in of.items():
                shown = f"{one.snr[radius]:.1f}" if radius else "–"
                rows.append([name, attack, size("linf", radius), shown, *map(accuracy, hits.values())])
                if radius:
                    claim = f"{name}, {attack}, eps {size('linf', radius)}: Parseval keeps more images right than usual"
                    claims.append(above(claim, hits[FRAMES], hits[USUAL]))
    trained = ", ".join(f"{size('linf', DATA[name].trained_at)} on {name}" for name in found)
    layers = table(("data", "network", "layer", "least", "median", "largest", "within 10 % of 1"), spectra(found))
    bounds = "; ".join(
        f"{name}, {label} {np.prod([float(values.max()) for values in of.values()]):.3g}"
        for name, one in found.items()
        for label, of in one.spectra.items()
    )
    return Outcome(
        title="Parseval networks: singular values, and accuracy over the size of an attack",
        source="Cisse et al., Parseval Networks: Improving Robustness to Adversarial Examples, ICML 2017, Figures 2 "
        "and 3, whose numbers are not published as text",
        spec={
            "data": {name: vars(DATA[name]) for name in found},
            **asdict(sizes),
            "beta": BETA,
            "plan": repr(PLAN),
            "seed": setting.seed,
        },
        columns=("data", "attack", "eps", "SNR, dB", *(f"accuracy, {label}" for label in (USUAL, FRAMES, STEPPED))),
        rows=rows,
        notes=[
            _HOW.format(**asdict(sizes), beta=BETA, trained=trained),
            "![Accuracy under FGSM and PGD over the signal-to-noise ratio](parseval-accuracy.svg)",
            as_table(claims),
            f"**Singular values**\n\n{layers}",
            "![Histograms of the singular values of the first and the fourth layer](parseval-singular-values.svg)",
            f"Product of the largest singular values: {bounds}. {_BOUND}",
        ],
        results={
            "accuracy": {
                name: {
                    attack: {
                        f"{radius:g}": {label: rate(row) for label, row in hits.items()} for radius, hits in of.items()
                    }
                    for attack, of in one.correct.items()
                }
                for name, one in found.items()
            },
            "snr": {name: {f"{radius:g}": value for radius, value in one.snr.items()} for name, one in found.items()},
            "claims": as_results(claims),
        },
        pictures={"accuracy": _accuracies(found), "singular-values": _spectra(found)},
    )


def spectra(found: Mapping[str, Measured]) -> list[list[str]]:
    """Return a row for each layer: its least, median and largest singular value, and how many are near 1."""
    rows = []
    for name, one in found.items():
        for label, layers in one.spectra.items():
            for place, values in enumerate(layers.values(), 1):
                near = float(((values - 1).abs() < 0.1).float().mean())
                numbers = (f"{float(value):.3f}" for value in (values.min(), values.median(), values.max()))
                rows.append([name, label, str(place), *numbers, f"{near:.0%}"])
    return rows


def _accuracies(found: Mapping[str, Measured]) -> str:
    panels = {}
    for name, one in found.items():
        for attack, of in one.correct.items():
            lines = {}
            for label in (USUAL, FRAMES, STEPPED):
                points = [(one.snr[radius], 100 * float(hits[label].mean())) for radius, hits in of.items() if radius]
                lines[label] = ([x for x, _ in points], [y for _, y in points])
            panels[f"{name}, {attack}"] = lines
    return curves(panels, "SNR, dB", "accuracy, %")


def _spectra(found: Mapping[str, Measured]) -> str:
    panels = {}
    for name, one in found.items():
        for place in (1, 4):
            panels[f"{name}, layer {place}"] = {
                label: list(layers.values())[place - 1].tolist() for label, layers in one.spectra.items()
            }
    return histograms(panels, "singular value")
