"""Rectifiers as softplus functions: equal to a network that is built of them, in value and in every derivative."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.networks import rand, randn
from underfire.gradients.softplus import softplus
from underfire.hooks import guided_relu, softplus_relu, wide_relu

BETA = 7.0


class Forms(nn.Module):
    """A rectifier in several forms; with `smooth`, each is written as a softplus."""

    def __init__(self, smooth: bool) -> None:
        super().__init__()
        self.smooth, self.layer = smooth, nn.Linear(6, 6, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.copy_(randn(6, 6, dtype=torch.float64))

    def forward(self, x):
        z = self.layer(x)
        if self.smooth:
            up = F.softplus(z, BETA, threshold=1000)
            capped = up - F.softplus(z - 0.5, BETA, threshold=1000)
            return up + up.square() + 0.1 * z + 0.9 * up + capped
        return F.relu(z) + z.clamp(min=0).square() + F.leaky_relu(z, 0.1) + F.hardtanh(z, 0, 0.5)


def derivatives(model, x):
    """Values, gradients, and the derivative of a gradient along itself."""
    x = x.clone().requires_grad_(True)
    value = model(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return value, first, second


def test_values_and_derivatives_are_those_of_a_softplus_network():
    x = rand(5, 6, dtype=torch.float64) - 0.5
    with softplus_relu(BETA):
        found = derivatives(Forms(smooth=False), x)
        with torch.no_grad():
            outside = Forms(smooth=False)(x)
    wanted = derivatives(Forms(smooth=True), x)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert torch.equal(outside, Forms(smooth=False)(x))  # without gradients, nothing changes
    assert not torch.allclose(found[0], outside, atol=0.01)


@pytest.mark.parametrize("inner", [wide_relu, guided_relu])
def test_it_stays_in_force_inside_another_rule(inner):
    x = rand(5, 6, dtype=torch.float64) - 0.5
    with softplus_relu(BETA), inner():
        value = Forms(smooth=False)(x.requires_grad_(True))
    assert torch.allclose(value, Forms(smooth=True)(x), atol=1e-6)


def test_the_estimator_takes_the_gradient_of_the_softplus_and_the_value_of_the_network():
    rough, smooth = Forms(smooth=False), Forms(smooth=True)
    x = rand(5, 6, dtype=torch.float64) - 0.5
    value, gradient = softplus(BETA, BETA, 3)(lambda z: rough(z).sum(1), x)
    assert torch.equal(value, rough(x).sum(1).detach())
    assert torch.allclose(gradient, derivatives(smooth, x)[1], atol=1e-6)


def test_beta_grows_by_the_same_factor_at_every_step():
    estimate, z = softplus(1.0, 16.0, 4), torch.full((1, 1), 0.1, dtype=torch.float64)
    state, found = estimate.init(z, torch.zeros(1, dtype=torch.int64)), []
    for _ in range(5):
        _, gradient, state = estimate.update(lambda z: F.relu(z).sum(1), z, None, state)
        found.append(gradient.logit().item() / 0.1)  # the derivative of the softplus is sigmoid(beta z)
    assert found == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0])
