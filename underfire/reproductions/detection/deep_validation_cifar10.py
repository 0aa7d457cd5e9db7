"""Detect corner cases of CIFAR-10 by Deep Validation, feature squeezing and kernel density (Wu et al. 2019)."""

from __future__ import annotations

from underfire import models
from underfire.model import Classifier
from underfire.reproductions.detection.page import Published, outcome
from underfire.reproductions.detection.study import Sizes, Study, measure
from underfire.reproductions.registry import Outcome, Setting


def network(setting: Setting) -> Classifier:
    """Return ResNet-56 with its public weights."""
    uri = f"{setting.root}/weights/resnet56_cifar10.safetensors?arch=resnet56_cifar10"
    return models.load(uri, device=setting.device)


STUDY = Study(
    network=network,
    train="parquet:{root}/cifar10-train.parquet",
    test="parquet:{root}/cifar10-test.parquet",
    # narrower than for digits: people must still recognise small photographs
    transformations=(
        *("rotation_45", "shear_0.4", "scale_0.45", "translation_0.4", "brightness_0.6", "contrast_4", "complement"),
        "scale_0.6+rotation_45",
    ),
    layers="layer3.[3-8]",  # the last six blocks: the paper, too, validates the last six layers
    pooling="mean",
    named="cifar10",
    error_rate=0.4,  # within ranges that keep the label, most transformations do not reach 60 %
    sizes={
        "quick": Sizes(fit=100, searched=10, changed=10, clean=20, strengths=1),
        "default": Sizes(fit=12_000, searched=150, changed=500, clean=1000, strengths=10),
        "full": Sizes(fit=50_000, searched=1000, changed=4000, clean=5000, strengths=20),
    },
)
PUBLISHED = Published(joint=0.9805, squeezing=0.8796, density=0.1254, least=0.95, network="DenseNet")


def run(setting: Setting) -> Outcome:
    """Fit the detectors of ResNet-56, and compare them on corner cases."""
    title = "Deep Validation on corner cases of CIFAR-10"
    return outcome(STUDY, setting, measure(STUDY, setting), PUBLISHED, title)
