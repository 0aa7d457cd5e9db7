"""What rectifiers pass back under a rule, in whatever form a network computes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from underfire import hooks
from underfire.errors import Unsupported


def h(z: torch.Tensor, tau: float) -> torch.Tensor:
    return torch.tensor([1 + v / (v * v + tau) ** 0.5 if v < 0 else v / (v * v + tau) ** 0.5 for v in z.tolist()])


def assigned(z):
    z = z.clone()
    z[z < 0] = 0
    return z


ACTIVATIONS = {
    "module": (nn.ReLU(), 0, None),
    "in-place module": (nn.ReLU(inplace=True), 0, None),
    "function": (F.relu, 0, None),
    "torch.relu": (torch.relu, 0, None),
    "method": (lambda z: z.relu(), 0, None),
    "in-place method, result ignored": (lambda z: (z.relu_(), z)[1], 0, None),
    "relu6 module": (nn.ReLU6(), 0, 6.0),
    "relu6 in-place": (nn.ReLU6(inplace=True), 0, 6.0),
    "leaky": (nn.LeakyReLU(0.2), 0.2, None),
    "leaky function": (lambda z: F.leaky_relu(z, 0.2, inplace=True), 0.2, None),
    "operator": (torch.ops.aten.relu.default, 0, None),
    "clamp": (lambda z: z.clamp(min=0), 0, None),
    "clip in place, result ignored": (lambda z: (z.clip_(0), z)[1], 0, None),
    "clamp of two sides": (lambda z: torch.clamp(z, 0, 6), 0, 6.0),
    "clamp_min": (lambda z: z.clamp_min(0.0), 0, None),
    "maximum": (lambda z: torch.maximum(torch.zeros_like(z), z), 0, None),
    "max of two": (lambda z: torch.max(z, z.new_zeros(1)), 0, None),
    "leaky maximum": (lambda z: torch.maximum(z, 0.2 * z), 0.2, None),
    "threshold": (nn.Threshold(0, 0), 0, None),
    "threshold in place": (lambda z: (F.threshold_(z, 0, 0), z)[1], 0, None),
    "where": (lambda z: torch.where(z > 0, z, 0.0), 0, None),
    "where not": (lambda z: torch.where(z <= 0, torch.zeros_like(z), z), 0, None),
    "where as a method": (lambda z: z.where(z > 0, z.new_zeros(())), 0, None),
    "leaky where": (lambda z: torch.where(z >= 0, z, 0.2 * z), 0.2, None),
    "product": (lambda z: z * (z > 0), 0, None),
    "product with numbers": (lambda z: (z.detach() > 0).to(z.dtype) * z, 0, None),
    "product of operators": (lambda z: torch.ops.aten.mul.Tensor(z, torch.ops.aten.gt.Scalar(z, 0)), 0, None),
    "masked_fill": (lambda z: z.masked_fill(~(z > 0), 0), 0, None),
    "assignment": (assigned, 0, None),
    "prelu": (nn.PReLU(init=0.2).requires_grad_(False), 0.2, None),
    "rrelu": (nn.RReLU(0.1, 0.3).eval(), 0.2, None),
}
NO_RECTIFIERS = {
    "softplus": F.softplus,
    "elu": F.elu,
    "silu": lambda z: z * z.sigmoid(),
    "the box of an image": lambda z: z.clamp(0, 1),
    "another bound": lambda z: z.clamp(min=-1),
    "maxout": lambda z: torch.maximum(z, 1 - z),
    "another mask": lambda z: z * (z > 0.2),
    "a mask of ones": lambda z: z * torch.ones_like(z),
    "the mask of another": lambda z: torch.where(z.flip(1) > 0, z, 0.0),
    "elu by hand": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "the largest of a column": lambda z: z.max(0).values,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_smooth_relu_passes_back_the_papers_step(kind):
    activation, slope, cap = ACTIVATIONS[kind]
    tau = 1e-2
    z = torch.tensor([-2.0, -0.1, -0.01, 0.02, 0.3, 5.9, 6.2], requires_grad=True)
    plain = activation(z * 1)
    with hooks.smooth_relu(tau):
        smooth = activation(z * 1)
        (first,) = torch.autograd.grad(smooth.sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), z)
    assert torch.equal(smooth, plain)  # predictions do not change
    wanted = h(z.detach(), tau) - (h(z.detach() - cap, tau) if cap else 0)
    wanted = slope + (1 - slope) * wanted
    assert torch.allclose(first, wanted, atol=1e-6)
    bump = tau / (z.detach() ** 2 + tau) ** 1.5 - (tau / ((z.detach() - cap) ** 2 + tau) ** 1.5 if cap else 0)
    assert torch.allclose(second, (1 - slope) * bump, rtol=1e-4, atol=1e-6)


def test_smooth_relu_ends_with_its_context():
    z = torch.tensor([0.001], requires_grad=True)
    with hooks.smooth_relu(1.0):
        F.relu(z)
    (gradient,) = torch.autograd.grad(F.relu(z).sum(), z)
    assert gradient.item() == 1


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_what_guided_and_deconvolved_rectifiers_pass_back(kind):
    activation, slope, cap = ACTIVATIONS[kind]
    z = torch.tensor([[-2.0, -0.1, 0.3, 5.9, 6.2]] * 2, requires_grad=True)
    back = torch.tensor([[1.5] * 5, [-0.7] * 5])
    positive = torch.tensor([[1.5] * 5, [0.0] * 5])
    step = (z > 0).float() - ((z > cap).float() if cap else 0)
    for bent, wanted in ((hooks.guided_relu, positive * (slope + (1 - slope) * step)), (hooks.deconv_relu, positive)):
        with bent():
            shown = activation(z * 1)
            (passed,) = torch.autograd.grad(shown, z, back)
        assert torch.equal(shown, activation(z * 1))
        assert torch.allclose(passed, wanted)


def test_guided_steps_can_be_differentiated_as_smooth_ones():
    z = torch.tensor([[-1.0, 0.1, 0.7]], requires_grad=True)
    with hooks.guided_relu(width=0.5):
        (first,) = torch.autograd.grad(F.relu(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    assert torch.equal(first, torch.tensor([[0.0, 1.0, 1.0]]))
    tau = 0.5**2 * 0.5  # 0.5 is the mean square of z
    assert torch.allclose(second, 0.5 * tau / (z.detach() ** 2 + tau) ** 1.5, rtol=1e-4)
    with hooks.smooth_relu(1e-2), hooks.guided_relu(width=0.5):
        (first,) = torch.autograd.grad(F.relu(z).sum(), z)
    assert torch.allclose(first[0], h(z.detach()[0], 1e-2))


@pytest.mark.parametrize("kind", NO_RECTIFIERS)
def test_what_is_no_rectifier_keeps_its_gradient(kind):
    f = NO_RECTIFIERS[kind]
    z = torch.tensor([[-2.0, -0.1, 0.1, 0.3, 1.9, 7.0], [0.5, 0.1, -3.0, 2.0, -1.0, 0.2]], requires_grad=True)
    back = torch.tensor([-1.0, 0.5, 1.0, -0.3, 0.2, -2.0])
    (wanted,) = torch.autograd.grad((back * f(z * 1)).sum(), z)
    with hooks.guided_relu() as seen:
        (passed,) = torch.autograd.grad((back * f(z * 1)).sum(), z)
    assert torch.equal(passed, wanted)
    with pytest.raises(Unsupported, match="guided_backprop .* no rectifier"):
        seen.require_rectifiers("guided_backprop")


def test_the_slopes_of_a_prelu_belong_to_channels():
    prelu = nn.PReLU(3).requires_grad_(False)
    prelu.weight.copy_(torch.tensor([0.1, 0.0, 2.0]))
    z = torch.tensor([[[-1.0, 1.0]] * 3], requires_grad=True)
    with hooks.guided_relu():
        shown = prelu(z * 1)
        (passed,) = torch.autograd.grad(shown.sum(), z)
    assert torch.equal(shown, prelu(z))
    assert torch.equal(passed, torch.tensor([[[0.1, 1.0], [0.0, 1.0], [2.0, 1.0]]]))


def test_an_inner_block_has_its_own_rule():
    z = torch.tensor([0.01], requires_grad=True)
    with hooks.smooth_relu(1.0), hooks.plain_relu():
        (plain,) = torch.autograd.grad(z.clamp_min(0), z)
    with hooks.smooth_relu(1.0):
        (smooth,) = torch.autograd.grad(z.clamp_min(0), z)
    assert plain.item() == 1 and smooth.item() < 0.1


@pytest.mark.parametrize("in_place", [False, True])
def test_a_hard_sigmoid_has_a_second_derivative(in_place):
    z = torch.tensor([-4.0, -1.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    with hooks.twice_differentiable():
        value = F.hardsigmoid(z * 1, inplace=in_place)
        (first,) = torch.autograd.grad((value**2).sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), z)
    assert torch.equal(value, F.hardsigmoid(z))
    inside = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(first, 2 * value * inside / 6) and torch.allclose(second, inside / 18)


def test_smooth_relu_in_half_precision_keeps_large_activations():
    z = torch.tensor([300.0], dtype=torch.float16, requires_grad=True)
    with hooks.smooth_relu():
        (gradient,) = torch.autograd.grad(F.relu(z).sum(), z)
    assert gradient.item() == 1
