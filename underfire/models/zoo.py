"""List the architectures of the zoo with their normalisation and class names, and find their weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from underfire.classes import imagenet, read_classes
from underfire.errors import ModelError, nearest
from underfire.models.architectures import (
    EfficientNetLite0,
    MnistSmall,
    MobileNetV1,
    MobileNetV2,
    PreactivationResNet,
    ResNet,
    SqueezeNet,
    WResnet,
    badnet,
    certified_small,
    trades_small,
)

DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EMBEDDED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Entry:
    """An architecture of the zoo.

    Attributes:
        build: returns the network with random weights.
        mean: the value that is subtracted from images in `[0, 1]`, one per channel or one for all.
        std: the divisor of images after that, one value per channel or one for all.
        labels: class names; None if a file of the data has them (ImageNet).
        side: height and width of the images that it was trained on; None if it takes any.
    """

    build: Callable[[], nn.Module]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] | None = None
    side: int | None = None


_MEAN = (0.485, 0.456, 0.406)


def _cifar_resnet(depth: int) -> Entry:
    """Return the ResNet of `depth` layers for CIFAR-10 (He et al. 2016)."""
    n = (depth - 2) // 6
    build = partial(ResNet, 3, (16, 1), ((16, n, 1), (32, n, 2), (64, n, 2)))
    return Entry(build, _MEAN, (0.229, 0.224, 0.225), CIFAR10, 32)


_DEFENSES = ("normal", "adv", "trades", "intone", "int", "intadv", "int2", "int2adv")  # Boopathy et al. 2020
_MNIST_ONLY = ("ig", "igsum", "intig", "intigadv")

ZOO: dict[str, Entry] = {
    "cluttered_digits": Entry(
        partial(ResNet, 1, (16, 2), ((32, 1, 2), (48, 2, 1))), mean=(0.2,), std=(0.3,), labels=DIGITS
    ),
    **{f"resnet{depth}_cifar10": _cifar_resnet(depth) for depth in (20, 32, 56)},
    "preact_resnet18_cifar10": Entry(
        PreactivationResNet, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616), CIFAR10, 32
    ),
    "mobilenet_v1_075_imagenet": Entry(MobileNetV1, mean=(0.5,), std=(0.5,), side=224),
    "mobilenet_v2_imagenet": Entry(MobileNetV2, mean=(128 / 255,), std=(128 / 255,), side=224),
    "efficientnet_lite0_imagenet": Entry(EfficientNetLite0, mean=(127 / 255,), std=(128 / 255,), side=224),
    "squeezenet11_imagenet": Entry(SqueezeNet, mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255,), side=224),
    **{f"mnist_small_{name}": Entry(MnistSmall, labels=DIGITS, side=28) for name in (*_DEFENSES, *_MNIST_ONLY)},
    **{f"cifar10_wresnet_{name}": Entry(WResnet, labels=CIFAR10, side=32) for name in _DEFENSES},
    "mnist_small_cnn": Entry(trades_small, labels=DIGITS, side=28),
    **{f"mnist_linf_{eps}": Entry(partial(certified_small, 1, 28), labels=DIGITS, side=28) for eps in ("0.1", "0.3")},
    **{
        f"cifar10_{eps}": Entry(partial(certified_small, 3, 32), _MEAN, (0.225,), CIFAR10, 32)
        for eps in ("linf_8_255", "l2_36_255")
    },
    "badnet_mnist": Entry(partial(badnet, 1, 28), (0.5,), (0.5,), DIGITS, 28),
    "badnet_cifar10": Entry(partial(badnet, 3, 32), (0.5,), (0.5,), CIFAR10, 32),
}


def entry(name: str) -> Entry:
    """Return the architecture called `name`.

    Raises:
        ModelError: there is no such architecture; the message suggests the nearest name.
    """
    if name not in ZOO:
        raise ModelError(f"unknown architecture {name!r}; {nearest(name, ZOO)}")
    return ZOO[name]


def data_root() -> Path | None:
    """Return the folder of data and weights in the environment variable `UNDERFIRE_DATA`, or None."""
    value = os.environ.get("UNDERFIRE_DATA")
    return Path(value) if value else None


def weights(name: str) -> Path:
    """Return the file with the weights of `name`, in the package or below `weights` in the folder `UNDERFIRE_DATA`.

    Raises:
        ModelError: neither place has it.
    """
    entry(name)
    embedded = EMBEDDED / f"{name}.safetensors"
    if embedded.is_file():
        return embedded
    root = data_root()
    if root is None:
        raise ModelError(
            f"the weights of zoo:{name} are not in the package; set UNDERFIRE_DATA to the folder of data and weights"
        )
    found = sorted((root / "weights").rglob(embedded.name))
    if not found:
        raise ModelError(f"there is no {embedded.name} below {str(root / 'weights')!r} (UNDERFIRE_DATA)")
    return found[0]


def class_names(entry: Entry, name: str, weights_file: Path) -> tuple[str, ...] | None:
    """Return the class names of a `classes.json` beside the weights, or else those of the architecture, or None."""
    imagenet_names = tuple(imagenet().values()) if name.endswith("_imagenet") else None
    return listed_names(weights_file) or entry.labels or imagenet_names


def listed_names(weights_file: Path) -> tuple[str, ...] | None:
    """Return the class names of a `classes.json` beside the weights, or None."""
    return tuple(name for _, name in read_classes(weights_file.parent / "classes.json")) or None
