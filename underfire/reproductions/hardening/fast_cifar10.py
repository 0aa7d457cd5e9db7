"""Train a PreAct ResNet-18 on CIFAR-10 by fast adversarial training, on a GPU, and attack it by PGD-50-10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from underfire import models, training
from underfire.ascent.objectives import log_odds
from underfire.attacks import pgd
from underfire.errors import InputError
from underfire.measures.statistics import rate
from underfire.models import zoo
from underfire.models.architectures import PreactivationResNet
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Hits, Trial, accuracy, clean
from underfire.reproductions.hardening.networks import Trained, Workshop, first_images
from underfire.reproductions.registry import Outcome, Setting
from underfire.training import Plan

EPS, STEP = 8 / 255, 2 / 255
PUBLISHED = {"clean": "86.06", "PGD-50-10": "46.06"}
"""Accuracy on the test images in per cent, from the authors' README; 12 minutes of training on one RTX 2080 Ti."""
ARCHITECTURE = "preact_resnet18_cifar10"


@dataclass(frozen=True)
class Sizes:
    """The size of a run.

    Attributes:
        train: the number of training images.
        held_out: how many of them are kept back to notice catastrophic overfitting.
        epochs: passes over them.
        width: channels of the first group of the network.
        images: the number of test images under PGD.
        steps, restarts: steps and restarts of PGD.
    """

    train: int
    held_out: int
    epochs: float
    width: int
    images: int
    steps: int = 50
    restarts: int = 10


SIZES = {
    "quick": Sizes(64, 8, 1, 4, 8, 2, 2),
    "default": Sizes(50_000, 500, 30, 64, 2000),
    "full": Sizes(50_000, 500, 30, 64, 10_000),
}

_HOW = """The network is a PreAct ResNet-18, trained at {eps}. As in the paper, its images are one step of FGSM of
10/255 away from a random point of the ball, crafted with the statistics of the batch; batches have 128 images, and SGD
has momentum, a highest rate of 0.2 and a weight decay of 5e-4. Ours are {epochs:g} epochs with a one-cycle schedule,
and bfloat16 instead of float16. {held_out} training images are kept back: training stops at the last good weights
if FGSM finds far less on them than PGD. PGD-50-10 has {steps} steps of 2/255 and {restarts} restarts, climbs the
log-odds and counts every iterate. Accuracy in per cent, with its 95 % Clopper-Pearson interval."""


def run(setting: Setting) -> Outcome:
    """Train the network if the work folder has no file of it, and attack it.

    Raises:
        InputError: the device is a processor, and the run is not quick.
    """
    if torch.device(setting.device).type == "cpu" and not setting.quick:
        raise InputError("fast-cifar10 needs a GPU, got the device cpu; give --device cuda, or --quick for a small run")
    sizes = SIZES[setting.scale]
    trained = network(setting, sizes)
    batch = first_images(setting, "parquet:{root}/cifar10-test.parquet", 10 * sizes.images)
    facts = asdict(sizes) | {"model": models.fingerprint(trained.model)}
    trial = Trial(batch, Store.of(setting, "fast-cifar10", facts), setting.progress, part=500)
    attack = partial(
        pgd,
        eps=EPS,
        step_size=STEP,
        steps=sizes.steps,
        restarts=sizes.restarts,
        objective=log_odds(),
        keep="success",
    )
    found = {
        "clean": trial.correct("clean", clean, trained.model),
        "PGD-50-10": trial.correct("PGD-50-10", attack, trained.model, n=sizes.images),
    }
    return outcome(setting, sizes, found, trained.seconds)


def network(setting: Setting, sizes: Sizes) -> Trained:
    """Return the trained network and the time of its training."""
    entry = zoo.entry(ARCHITECTURE)
    workshop = Workshop.of(setting, "parquet:{root}/cifar10-train.parquet", sizes.train)
    workshop = replace(workshop, mean=entry.mean, std=entry.std)
    plan = Plan(
        epochs=sizes.epochs,
        rate=0.2,
        weight_decay=5e-4,
        augment="shift_and_flip",
        precision="full" if setting.quick else "bfloat16",
        channels_last=not setting.quick,
        held_out=sizes.held_out,
        overfitting="stop",
    )
    options: dict[str, Any] = {"eps": EPS, "step_size": 10 / 255, "batch_norm": "train"}
    build = partial(PreactivationResNet, sizes.width)
    return workshop.train("cifar10-preact-fast", build, training.fast, plan, **options)


def outcome(setting: Setting, sizes: Sizes, found: Mapping[str, Hits], seconds: float) -> Outcome:
    """Return the outcome, from which images are correct, and the seconds that the training took."""
    rows = [[name, str(len(hits)), accuracy(hits), PUBLISHED[name]] for name, hits in found.items()]
    device = torch.device(setting.device)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor"
    took = f"""The training, or its last part if it was interrupted, took {seconds / 60:.1f} minutes on {named}.
Published are 12 minutes on one RTX 2080 Ti."""
    return Outcome(
        title="Fast adversarial training of a PreAct ResNet-18 on CIFAR-10",
        source="Wong, Rice and Kolter, Fast Is Better than Free: Revisiting Adversarial Training, ICLR 2020, and the "
        "authors' README",
        spec={"data": "CIFAR-10", "model": ARCHITECTURE, **asdict(sizes), "eps": EPS, "seed": setting.seed},
        columns=("attack", "n", "accuracy", "published"),
        rows=rows,
        notes=[
            _HOW.format(eps="8/255", **asdict(sizes)),
            took,
        ],
        results={"accuracy": {name: rate(hits) for name, hits in found.items()}, "training seconds": seconds},
    )
