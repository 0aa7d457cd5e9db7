"""The network of the experiments on detectors: trained once, then read."""

import gzip
import struct

import pytest
import torch

from underfire import models
from underfire.reproductions.detection.mnist_network import network, weights
from underfire.reproductions.registry import Setting


@pytest.fixture
def root(tmp_path):
    """A folder with 32 training images in the format of MNIST, each a bar whose place is its class."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    y = torch.arange(32) % 10
    x = torch.zeros(32, 28, 28, dtype=torch.uint8)
    for row, label in enumerate(y.tolist()):
        x[row, 2 * label : 2 * label + 4] = 255
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">IIII", 2051, 32, 28, 28) + x.numpy().tobytes())
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">II", 2049, 32) + y.to(torch.uint8).numpy().tobytes())
    return folder.parent


@pytest.mark.slow
def test_the_network_is_trained_once_and_read_afterwards(root, tmp_path):
    setting = Setting(root, tmp_path / "out", tmp_path / "work", "quick")
    first = network(setting)
    written = weights(setting).stat().st_mtime_ns
    again = network(setting)
    assert weights(setting).stat().st_mtime_ns == written and not again.training
    x = torch.zeros(2, 1, 28, 28)
    assert torch.equal(first(x), again(x)) and first(x).shape == (2, 10)
    assert torch.equal(models.load(f"{weights(setting)}?arch=mnist_small_cnn")(x), first(x))
