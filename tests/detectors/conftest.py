"""What tests of detectors share: a network that predicts all its classes, and clean images for it."""

import pytest
import torch

from tests.networks import build_network, rand
from underfire.records import Batch


@pytest.fixture(scope="session")
def balanced():
    """A network that predicts each of its three classes about equally often."""
    network = build_network(classes=3)
    head, logits = network.module[-1], network.predict(rand(90, 3, 6, 6))
    with torch.no_grad():
        head.weight.div_(logits.std(0)[:, None])
        head.bias.sub_(logits.mean(0)).div_(logits.std(0))
    return network


@pytest.fixture(scope="session")
def balanced_images(balanced):
    """Images with the labels that this network predicts."""
    x = rand(90, 3, 6, 6)
    return Batch(x, balanced.predict(x).argmax(1), tuple(map(str, range(90))))
