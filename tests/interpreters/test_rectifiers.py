"""Guided back-propagation and deconvolution on networks that spell their rectifiers in other ways, or have none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, randn
from underfire.errors import Unsupported

SPELLINGS = {
    "method": lambda z: z.relu(),
    "clamp": lambda z: z.clamp(min=0),
    "clamp_min": lambda z: z.clamp_min(0),
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "where": lambda z: torch.where(z > 0, z, 0.0),
    "product": lambda z: z * (z > 0),
    "threshold": lambda z: F.threshold(z, 0, 0),
    "hardtanh": lambda z: F.hardtanh(z, 0, 1e9),
    "absolute": lambda z: (z + z.abs()) / 2,
    "absolute, halves": lambda z: 0.5 * z + torch.abs(z) * 0.5,
    "absolute, in place": lambda z: z.abs().add_(z).mul_(0.5),
}
METHODS = ("guided_backprop", "deconvnet", "guided_grad_cam")


class Network(nn.Module):
    def __init__(self, activation, gate=None):
        super().__init__()
        torch.manual_seed(0)
        self.activation, self.gate = activation, gate
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        z = self.activation(self.a(x))
        z = self.activation(self.b(z if self.gate is None else z * self.gate(z.mean((2, 3), keepdim=True))))
        return self.head(z.mean((2, 3)))


@pytest.fixture(scope="module")
def x():
    return rand(2, 3, 8, 8)


Y = torch.tensor([0, 1])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_rectifier_is_one_function_however_it_is_spelt(x, spelling):
    wanted, model = uf.Classifier(Network(F.relu).eval()), uf.Classifier(Network(SPELLINGS[spelling]).eval())
    probe = randn(2, 1, 8, 8, seed=1)
    for name in METHODS:
        show = uf.find("interpreter", name)
        maps, slopes = [], []
        for network in (model, wanted):
            point = x.clone().requires_grad_()
            maps.append(show(network, point, Y))
            slopes += torch.autograd.grad((probe * maps[-1]).sum(), point)
        assert torch.allclose(*maps, atol=1e-7) and torch.allclose(*slopes, atol=1e-6)
        assert torch.allclose(show(model, x[1:], Y[1:]), maps[0][1:], atol=1e-6)
        assert not torch.allclose(maps[0], uf.interpreters.gradient(model, x, Y), atol=1e-4)
    curvature = []
    for network in (model, wanted):
        point = x.clone().requires_grad_()
        shown = uf.interpreters.gradient(network, point, Y, double_backward="smooth")
        curvature += torch.autograd.grad((probe * shown).sum(), point)
    assert torch.allclose(*curvature, atol=1e-6) and bool(curvature[0].any())


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        (lambda z: 0.6 * z + 0.4 * abs(z), lambda z: F.leaky_relu(z, 0.2)),
        (lambda z: ((-z).abs() - (-z)) / 2, F.relu),
        (lambda z: z.abs() - z, lambda z: 2 * F.relu(-z)),
        (lambda z: z - z.abs(), lambda z: -2 * F.relu(-z)),
    ],
)
def test_sums_and_differences_with_an_absolute_value_are_rectifiers(x, name, spelling, plain):
    show = uf.find("interpreter", name)
    maps = [show(uf.Classifier(Network(f).eval()), x, Y) for f in (spelling, plain)]
    assert torch.allclose(*maps, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ELU(), nn.Softplus(), nn.Identity(), torch.abs]
)
def test_a_network_without_rectifiers_is_refused(x, name, activation):
    model = uf.Classifier(Network(activation).eval())
    with pytest.raises(Unsupported, match="rectifier"):
        uf.find("interpreter", name)(model, x, Y)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet"])
def test_a_compiled_network_is_refused(x, name):
    model = uf.Classifier(torch.jit.trace(Network(F.relu).eval(), x))
    with pytest.raises(Unsupported, match="compiled"):
        uf.find("interpreter", name)(model, x, Y)


@pytest.mark.parametrize(
    ("name", "options"), [(name, {}) for name in METHODS] + [("gradient", {"double_backward": "exact"})]
)
def test_networks_with_hard_sigmoids_are_differentiated_twice(x, name, options):
    """As MobileNetV3, whose gates are hard sigmoids."""
    model = uf.Classifier(Network(F.relu, nn.Hardsigmoid()).double().eval())
    show = uf.find("interpreter", name).with_options(**options)
    point = x.double().requires_grad_()
    probe = randn(2, 1, 8, 8, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((probe * show(model, point, Y)).sum(), point)
    assert bool(torch.isfinite(slope).all()) and bool(slope.any())
