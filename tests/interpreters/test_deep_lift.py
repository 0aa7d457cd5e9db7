"""DeepLIFT: against Captum, against its equations, and that contributions sum to the change of the logit."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.interpreters.test_lrp import Gated, Plain, Residual, build, x_of
from tests.networks import rand, randn
from underfire.errors import InputError, Unsupported
from underfire.interpreters import deep_lift
from underfire.interpreters.deep_lift.deep_lift import detailed

Y = torch.tensor([0, 1, 3])


def captums(body, x, y, baseline):
    attr = pytest.importorskip("captum.attr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attr.DeepLift(body).attribute(x.clone(), baseline, target=y).detach()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU])
def test_the_rescale_rule_equals_captums(activation):
    body, x = Plain(), x_of()
    body.relu, body.other, body.last = activation(), activation(), activation()
    body = body.double().eval()
    for baseline, theirs in (
        ("black", torch.zeros_like(x)),
        (rand(3, 3, 6, 6, seed=7), rand(3, 3, 6, 6, seed=7).double()),
    ):
        shown = deep_lift(uf.Classifier(body), x, Y, baseline=baseline, channels=True)
        assert torch.allclose(shown, captums(body, x, Y, theirs), atol=1e-9) and bool(shown.any())


class Pool(nn.Module):
    """The largest of four doubled pixels."""

    def forward(self, x):
        z = F.max_pool2d(2 * x, 2).flatten(1).sum(1)
        return torch.stack([z, -z], 1)


def test_a_maximum_goes_to_the_larger_of_image_and_baseline():
    """If it rises, the pixel that is largest now gets the change, and otherwise the one that was largest."""
    one, other = (
        torch.tensor(v, dtype=torch.float64).view(1, 1, 2, 2) for v in ([0.1, 0.9, 0.3, 0.4], [0.5, 0.2, 0.6, 0.1])
    )
    rises = deep_lift(Pool(), one, Y[:1], baseline=other[0])
    falls = deep_lift(Pool(), other, Y[:1], baseline=one[0])
    assert torch.allclose(rises.flatten(), torch.tensor([0, 0.6, 0, 0]).double())
    assert torch.allclose(falls.flatten(), torch.tensor([0, -0.6, 0, 0]).double())


OPERATIONS = {
    "relu6": lambda z: F.relu6(30 * z, inplace=True),
    "leaky": lambda z: F.leaky_relu(z, 0.1),
    "mask": lambda z: z.masked_fill_(z < 0, 0.0),
    "gelu": F.gelu,
    "silu in place": lambda z: F.silu(z, inplace=True),
    "overlapping pool": lambda z: F.max_pool2d(z, 3, 2, 1),
    "adaptive pool": lambda z: F.adaptive_max_pool2d(z.relu(), 2),
    "gate": lambda z: z * z.mean((2, 3), keepdim=True).sigmoid(),
    "square": lambda z: z * z + z**3,
    "quotient": lambda z: z.tanh() / (1 + z.square()),
    "reciprocal": lambda z: 2 / (1 + z.square()),
    "group norm": lambda z: F.group_norm(z, 2),
    "instance norm": lambda z: F.instance_norm(z).square(),
    "layer norm": lambda z: F.layer_norm(z.flatten(2), (16,), torch.linspace(1, 2, 16).to(z)),
    "rms norm": lambda z: F.rms_norm(z.flatten(2), (16,)),
    "softmax": lambda z: F.softmax(9 * z, 1),
    "products": lambda z: z @ (z.mT @ z),
    "attention": lambda z: F.scaled_dot_product_attention(z, 3 * z, z.tanh()),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_contributions_sum_to_the_change_of_the_logit(operation):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(OPERATIONS[operation](self.stem(x)).flatten(2).mean(2))

    model, x = build(Network), x_of()
    for options in ({}, {"baseline": "many"}, {"rule": "reveal_cancel", "baseline": "blur"}):
        assert float(detailed(model, x, Y, **options)[1]["completeness_gap"].max()) < 1e-9


@pytest.mark.parametrize("kind", [Residual, Gated])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_whole_networks_are_complete_too(kind, rule):
    shown, numbers = detailed(build(kind), x_of(), Y, rule=rule)
    assert float(numbers["completeness_gap"].max()) < 1e-9 and float(shown.abs().max()) < 10


# --- RevealCancel ----------------------------------------------------------------------------------------------------


class Minimum(nn.Module):
    """The smaller of two pixels, `a - ReLU(a - b)`, on which the paper shows what the rescale rule does not see."""

    def __init__(self):
        super().__init__()
        self.difference = nn.Linear(2, 1, bias=False)
        self.difference.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x):
        z = x.flatten(1)
        least = z[:, :1] - F.relu(self.difference(z))
        return torch.cat([least, -least], 1)


def test_the_minimum_of_two_pixels():
    """Of 0.8 and 0.3, the rescale rule gives all to the smaller one; RevealCancel gives each half."""
    model, x = Minimum().double(), torch.tensor([0.8, 0.3], dtype=torch.float64).view(1, 1, 1, 2)
    assert torch.allclose(deep_lift(model, x, Y[:1]).flatten(), torch.tensor([0.0, 0.3]).double())
    shown = deep_lift(model, x, Y[:1], rule="reveal_cancel").flatten()
    assert torch.allclose(shown, torch.tensor([0.15, 0.15]).double())


def test_reveal_cancel_word_for_word():
    """One neuron at a time, on two linear layers with a tanh each."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh()).double()
    x, start = x_of(2), rand(3, 3, 2, 2, seed=3, dtype=torch.float64)
    shown = deep_lift(body, x, Y, baseline=start, rule="reveal_cancel", channels=True)
    for i in range(3):
        inputs = [(x[i].flatten(), start[i].flatten())]
        for layer in (body[1], body[3]):
            inputs.append(tuple(layer(t).tanh().detach() for t in inputs[-1]))
        m = F.one_hot(Y[i], 4).double()  # the multipliers of the outputs
        for layer, (a, a0) in zip((body[3], body[1]), reversed(inputs[:2]), strict=True):
            w, z0 = layer.weight.detach(), layer(a0).detach()
            below = torch.zeros_like(a)
            for k in range(len(w)):
                part = w[k] * (a - a0)
                up, down = part.clamp_min(0).sum(), part.clamp_max(0).sum()
                f = torch.tanh
                by_up = (f(z0[k] + up) - f(z0[k]) + f(z0[k] + up + down) - f(z0[k] + down)) / 2
                by_down = (f(z0[k] + down) - f(z0[k]) + f(z0[k] + up + down) - f(z0[k] + up)) / 2
                below += m[k] * w[k] * torch.where(part > 0, by_up / up, by_down / down)
            m = below
        assert torch.allclose(shown[i].flatten(), (x[i] - start[i]).flatten() * m)


# --- derivatives, errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_the_derivative_of_the_map_is_right(rule, baseline):
    """That of the baseline too, where it follows the image; and on ReLUs, whose secants have a derivative."""
    model, x = build(), x_of(n=2)
    probe, direction = randn(2, 1, 6, 6, dtype=torch.float64), randn(2, 3, 6, 6, seed=1, dtype=torch.float64)

    def show(x):
        return (probe * deep_lift(model, x, Y[1:], rule=rule, baseline=baseline)).sum()

    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(show(point), point)
    measured = (show(x + 1e-7 * direction) - show(x - 1e-7 * direction)) / 2e-7
    assert torch.allclose((slope * direction).sum(), measured, rtol=1e-4)


def test_gradcheck_on_a_smooth_network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(12, 4)).double()
    x = rand(2, 2, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: deep_lift(body, x, Y[1:]), (x,), fast_mode=True)


def test_one_pass_of_the_baseline_serves_all_images():
    model, x = build(), x_of()
    with model.counting() as count:
        deep_lift(model, x, Y)
    assert (count.forwards, count.backwards) == (4 + 0, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_wrong_is_said():
    model, x = build(), x_of()
    with pytest.raises(Unsupported, match="rescale, reveal_cancel"):
        deep_lift(model, x, Y, rule="reveal")
    with pytest.raises(InputError, match="black"):
        deep_lift(model, x, Y, baseline="blck")
    for compiled in (torch.jit.trace(Plain().eval(), x.float()), torch.compile(Plain().eval())):
        with pytest.raises(Unsupported, match="torch.compile and torch.jit"):
            deep_lift(compiled, x.float(), Y)

    class Changing(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, :4]
            return z.tanh() if len(x) == 1 else z.tanh().sigmoid()

    with pytest.raises(Unsupported, match="same operations"):
        deep_lift(Changing(), x, Y)
