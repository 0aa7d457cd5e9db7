"""Load the networks and images of the benchmarks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from underfire import data, models
from underfire.errors import DataError
from underfire.extras import declare_missing_operators as declare_missing_operators


def data_root() -> Path:
    """Return the folder of real data and weights."""
    root = Path(os.environ.get("UNDERFIRE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        raise DataError(f"the benchmarks need real data and weights; set UNDERFIRE_DATA (no folder {root})")
    return root


def cifar10() -> data.Dataset:
    """Return the 10,000 test images of CIFAR-10."""
    return data.load(f"parquet:{data_root() / 'cifar10-test.parquet'}")


def photographs(n: int) -> data.Dataset:
    """Return `n` photographs of ImageNet of 224 x 224 pixels."""
    return data.load(f"folder:{data_root() / 'imagenet_sample'}?size=224", n=n)


def describe(images: tuple[str, ...]) -> dict[str, str]:
    """Return a description of each named image set, which is stored with a measurement."""
    return {name: IMAGES[name]() for name in images}


def _describe_cifar10() -> str:
    digest = hashlib.sha256((data_root() / "cifar10-test.parquet").read_bytes()).hexdigest()
    return f"lossless, sha256 {digest[:12]}"


def _describe_imagenet() -> str:
    count = sum(1 for _ in (data_root() / "imagenet_sample").glob("*/*"))
    return f"{count} photographs, JPEG"


#: The image sets by name, with the function that describes each.
IMAGES: dict[str, Callable[[], str]] = {"CIFAR-10": _describe_cifar10, "ImageNet": _describe_imagenet}


def correct(model: models.Classifier, n: int) -> tuple[models.Classifier, Tensor, Tensor]:
    """Return the model, and the first `n` CIFAR-10 test images that it classifies correctly with their labels."""
    batch = cifar10()[: 2 * n]
    right = (model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)[:n]
    return model, batch.x[right], batch.y[right]


def cifar_resnet20(n: int) -> tuple[models.Classifier, Tensor, Tensor]:
    """Return ResNet-20 and the first `n` CIFAR-10 test images that it classifies correctly."""
    return correct(zoo("resnet20_cifar10"), n)


def zoo(name: str, folder: str = "") -> models.Classifier:
    """Load a network of the zoo with its published weights, from `folder` below the folder of weights."""
    return models.load(f"{data_root() / 'weights' / folder / name}.safetensors?arch={name}")


def mobilenet(n: int) -> tuple[models.Classifier, Tensor, Tensor]:
    """Return MobileNet v1 0.75 and `n` ImageNet photographs."""
    batch = photographs(n)[:]
    return zoo("mobilenet_v1_075_imagenet"), batch.x, batch.y
