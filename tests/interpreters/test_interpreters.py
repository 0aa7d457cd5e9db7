"""Interpreters against their formulas and each other."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand, randn
from underfire.errors import ModelError, Unsupported
from underfire.hooks import smooth_relu


@pytest.fixture
def case(network):
    model = network("relu", torch.float64)
    x = rand(4, 3, 10, 8, dtype=torch.float64)
    return model, x, torch.tensor([0, 1, 2, 3])


def plain_gradient(model, x, y):
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)
    return g


def test_gradient(case):
    model, x, y = case
    g = plain_gradient(model, x, y)
    assert torch.allclose(uf.interpreters.gradient(model, x, y), g.abs().amax(1, keepdim=True))
    assert torch.allclose(uf.interpreters.gradient(model, x, y, absolute=False), g.sum(1, keepdim=True))
    pooled = uf.interpreters.gradient(model, x, y, pool=2)
    assert torch.allclose(pooled[:, :, 0, 0], g.abs().amax(1, keepdim=True)[:, :, :2, :2].mean((2, 3)))


def test_gradient_input_sums_to_the_logit_of_a_linear_model():
    linear = uf.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False)).double())
    x = rand(5, 3, 2, 2, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    shown = uf.interpreters.gradient_input(linear, x, y)
    assert torch.allclose(shown.sum((1, 2, 3)), linear(x).gather(1, y[:, None]).squeeze(1))


def test_cam_is_complete(case):
    """Its mean and the bias make the logit."""
    model, x, y = case
    total = uf.interpreters.cam(model, x, y).mean((1, 2, 3)) + model.module[-1].bias[y]
    assert torch.allclose(total, model(x).gather(1, y[:, None]).squeeze(1))


def test_grad_cam_is_cam_without_its_negative_part_where_pooling_is_global(case):
    model, x, y = case
    features = model.module[:4]((x - 0.5) / 0.25)
    signed = torch.einsum("bk,bkhw->bhw", model.module[-1].weight[y], features).unsqueeze(1)
    assert torch.allclose(uf.interpreters.cam(model, x, y), signed)
    cells = features.shape[2] * features.shape[3]
    assert torch.allclose(uf.interpreters.grad_cam(model, x, y), signed.clamp_min(0) / cells)


def test_grad_cam_of_an_inner_layer(case):
    model, x, y = case
    body = model.module
    features = body[0]((x - 0.5) / 0.25).detach().requires_grad_()
    logits = body[1:](features)
    (g,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), features)
    wanted = (g.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).clamp_min(0)
    assert torch.allclose(uf.interpreters.grad_cam(model, x, y, layer="0"), wanted)


def test_what_a_model_cannot_give_is_said(case):
    model, x, y = case
    with pytest.raises(ModelError, match="no layer '9'"):
        uf.interpreters.grad_cam(model, x, y, layer="9")
    with pytest.raises(Unsupported, match=r"spatial layer.*'6' .*\(4,\)"):
        uf.interpreters.grad_cam(model, x, y, layer="6")
    flat = uf.Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 48, 4)).double())
    with pytest.raises(Unsupported, match="global average pooling"):
        uf.interpreters.cam(flat, x, y)
    with pytest.raises(Unsupported, match="double_backward 'wide' is unknown"):
        uf.interpreters.gradient(model, x, y, double_backward="wide")


def test_differences_of_gradients_agree_with_the_exact_curvature(network):
    """On a smooth network, where both are right."""
    x = rand(4, 3, 10, 10, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3])
    weights = randn(4, 1, 10, 10, seed=1, dtype=torch.float64)
    model = network("smooth", torch.float64)
    products = {}
    for double_backward in ("exact", "finite_difference"):
        point = x.clone().requires_grad_()
        shown = uf.interpreters.gradient(model, point, y, double_backward=double_backward)
        (products[double_backward],) = torch.autograd.grad((weights * shown).sum(), point)
    cosine = torch.cosine_similarity(products["exact"].flatten(1), products["finite_difference"].flatten(1))
    assert (cosine > 0.99).all()


def test_second_derivatives_of_a_relu_network_are_zero_unless_smoothed(case):
    model, x, y = case
    x = x.clone().requires_grad_()

    def curvature():
        shown = uf.interpreters.gradient(model, x, y, absolute=False, double_backward="exact")
        return torch.autograd.grad(shown.square().sum(), x, allow_unused=True)[0]

    assert curvature() is None or (curvature() == 0).all()
    with smooth_relu(1e-2):
        assert (curvature().flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("card", list(uf.cards("interpreter")), ids=lambda card: card.name)
def test_every_interpreter_is_reachable_under_its_catalogue_name(card):
    assert getattr(uf.interpreters, card.name) is card.function
