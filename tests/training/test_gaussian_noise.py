"""Training with Gaussian noise against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import underfire as uf
from tests.networks import seeded
from tests.training.toys import X, Y, batches, close, descend, network, plan, seed_of
from underfire.errors import InputError


def test_it_is_a_plain_loop_with_noise() -> None:
    made = uf.training.gaussian_noise(network(), (X, Y), sigma=0.3, plan=plan(), generator=seeded(1))
    slow, generator = network(), seed_of(1)
    for x, y in batches(generator):
        descend(slow, F.cross_entropy(slow(x + 0.3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)), y))
    assert close(made, slow)


def test_a_wrong_sigma_is_named() -> None:
    with pytest.raises(InputError, match="sigma > 0, got 0"):
        uf.training.gaussian_noise(network(), (X, Y), sigma=0.0, plan=plan())
