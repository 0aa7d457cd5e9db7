"""Convolutions and batch norms with frozen weights: the values and derivatives of torch, and fewer operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.networks import rand
from underfire.hooks import twice_differentiable

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "grouped": (lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (2, 4, 7, 6)),
    "dilated": (lambda: nn.Conv2d(3, 5, (3, 2), padding=(2, 0), dilation=(2, 1), bias=False), (2, 3, 6, 5)),
    "1d": (lambda: nn.Conv1d(2, 3, 3, stride=(2,)), (2, 2, 9)),
    "3d": (lambda: nn.Conv3d(2, 2, 2, groups=2), (1, 2, 3, 4, 3)),
    "padded by name": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 5, 5)),
    "norm": (lambda: norm(nn.BatchNorm2d(3)), (2, 3, 4, 4)),
    "norm without weights": (lambda: norm(nn.BatchNorm1d(3, affine=False)), (4, 3)),
}


def norm(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Return a batch norm with statistics and weights that are not the initial ones."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(rand(3))
    layer.running_var.copy_(rand(3, seed=1) + 0.5)
    return layer


def case(name: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a function with a second derivative that holds a frozen layer, and its input."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double().eval().requires_grad_(False)
    return lambda z: layer(z).sin(), rand(*shape, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("name", LAYERS)
def test_the_derivatives_are_right(name: str) -> None:
    f, z = case(name)
    with twice_differentiable():
        assert torch.equal(f(z), f(z.detach()))
        assert torch.autograd.gradcheck(f, z, fast_mode=True)
        assert torch.autograd.gradgradcheck(f, z, fast_mode=True)


@pytest.mark.parametrize("name", ["grouped", "norm"])
def test_the_second_derivatives_are_those_of_torch(name: str) -> None:
    f, z = case(name)

    def second() -> Tensor:
        (g,) = torch.autograd.grad(f(z).square().sum(), z, create_graph=True)
        return torch.autograd.grad(g.square().sum(), z)[0]

    wanted = second()
    with twice_differentiable():
        assert torch.allclose(second(), wanted, rtol=1e-9)


def test_a_second_derivative_convolves_once_for_all_groups() -> None:
    layer = nn.Conv2d(16, 16, 3, groups=16).requires_grad_(False)
    x = rand(1, 16, 6, 6).requires_grad_()
    with twice_differentiable():
        z = layer(x).square()
    (g,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.autograd.grad(g.square().sum(), x)
    calls = sum(event.count for event in profile.key_averages() if event.key == "aten::convolution")
    assert calls == 1


def test_weights_that_learn_keep_their_derivatives() -> None:
    layer = nn.Conv2d(2, 2, 1)
    with twice_differentiable():
        layer(rand(1, 2, 3, 3).requires_grad_()).sum().backward()
    assert layer.weight.grad is not None


def test_a_network_that_casts_its_layers_keeps_its_derivatives() -> None:
    layer = nn.Conv2d(2, 2, 3).requires_grad_(False)
    x = rand(1, 2, 4, 4).requires_grad_()

    def second() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = layer(x)
        (g,) = torch.autograd.grad(z.float().square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.sum(), x)[0]

    wanted = second()
    with twice_differentiable():
        assert torch.equal(second(), wanted)
