"""A network and images small enough to attack in a test."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor

from tests.networks import build_network, rand
from underfire.model import Classifier


@pytest.fixture(scope="module", autouse=True)
def _tiny_networks(plain_convolutions: None) -> None:
    """Compute their convolutions without oneDNN."""


@dataclass(frozen=True)
class Case:
    """A model, images, their classes, and the likeliest other class of each."""

    model: Classifier
    x: Tensor
    y: Tensor
    goal: Tensor


@pytest.fixture(scope="module")
def small() -> Case:
    """Return six images of 12 x 12 pixels and a network whose CAM has 6 x 6 cells."""
    model, x = build_network("relu"), rand(6, 3, 12, 12)
    y, goal = model(x).detach().topk(2, dim=1).indices.unbind(1)
    return Case(model, x, y, goal)
