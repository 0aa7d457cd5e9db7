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
from underfire.model import Classifier


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


def _describe_mnist() -> str:
    digest = hashlib.sha256((data_root() / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()).hexdigest()
    return f"test images, sha256 {digest[:12]}"


#: The image sets by name, with the function that describes each.
IMAGES: dict[str, Callable[[], str]] = {
    "CIFAR-10": _describe_cifar10,
    "MNIST": _describe_mnist,
    "ImageNet": _describe_imagenet,
}


def correct(
    model: Classifier, n: int, *, first: int = 0, images: data.Dataset | None = None
) -> tuple[Classifier, Tensor, Tensor]:
    """Return the model, and `n` test images that it classifies correctly with their labels.

    Args:
        first: how many such images are passed over.
        images: the test images; None is those of CIFAR-10.
    """
    batch = (cifar10() if images is None else images)[: 2 * (first + n)]
    right = (model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)[first : first + n]
    return model, batch.x[right], batch.y[right]


def mnist() -> data.Dataset:
    """Return the 10,000 test images of MNIST."""
    return data.load(f"mnist:{data_root() / 'mnist'}")


def cifar_resnet20(n: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return ResNet-20 and the first `n` CIFAR-10 test images that it classifies correctly."""
    return correct(zoo("resnet20_cifar10"), n)


def zoo(name: str, folder: str = "") -> Classifier:
    """Load a network of the zoo with its published weights, from `folder` below the folder of weights."""
    return models.load(f"{data_root() / 'weights' / folder / name}.safetensors?arch={name}")


def mobilenet(n: int) -> tuple[Classifier, Tensor, Tensor]:
    """Return MobileNet v1 0.75 and `n` ImageNet photographs."""
    batch = photographs(n)[:]
    return zoo("mobilenet_v1_075_imagenet"), batch.x, batch.y
