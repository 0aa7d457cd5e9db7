"""LayerCAM and HiResCAM, which weigh every place of a feature map by its own gradient."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.interpreters.test_class_activation import as_theirs, case, peer, split, tail_with_kinks  # noqa: F401
from tests.networks import randn
from underfire.interpreters import cam, hires_cam, layer_cam


def test_both_by_their_equations(case):  # noqa: F811
    model, x, y = case
    features, g = split(model, x, y, 2)
    assert torch.allclose(hires_cam(model, x, y, layer="1"), (g * features).sum(1, keepdim=True))
    wanted = (g.clamp_min(0) * features).sum(1, keepdim=True).clamp_min(0)
    assert torch.allclose(layer_cam(model, x, y, layer="1"), wanted) and bool(wanted.any())


def test_hires_cam_of_a_pooled_head_is_cam_and_sums_to_the_logit(case):  # noqa: F811
    model, x, y = case
    assert torch.allclose(hires_cam(model, x, y), cam(model, x, y) / 20)  # 5 x 4 places
    total = hires_cam(model, x, y).sum((1, 2, 3)) + model.module[6].bias[y]
    assert torch.allclose(total, model(x).gather(1, y[:, None])[:, 0])


def test_layer_cam_takes_the_largest_value_of_several_layers(case):  # noqa: F811
    model, x, y = case
    maps = [layer_cam(model, x, y, layer=name) for name in ("1", "3")]
    scaled = [(2 * m / m.amax((1, 2, 3), keepdim=True)).tanh() for m in maps]
    wanted = torch.maximum(scaled[0], F.interpolate(scaled[1], (10, 8), mode="bilinear"))
    assert torch.allclose(layer_cam(model, x, y, layer=("1", "3")), wanted)


@pytest.mark.parametrize("method", [layer_cam, hires_cam])
def test_inner_layers_are_differentiated_too(network, case, method):  # noqa: F811
    _, x, y = case
    x, model = x[:2].clone().requires_grad_(), network("smooth", torch.float64)
    model.module[4] = nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool2d(1))
    shown = method(model, x, y[:2], layer="1")
    probe, direction = randn(*shown.shape, seed=1, dtype=x.dtype), randn(*x.shape, seed=2, dtype=x.dtype)
    (slope,) = torch.autograd.grad((probe * shown).sum(), x)
    with torch.no_grad():
        ahead, behind = (method(model, x + s * direction, y[:2], layer="1") for s in (1e-6, -1e-6))
    assert torch.allclose((slope * direction).sum(), (probe * (ahead - behind)).sum() / 2e-6, rtol=1e-4)


@pytest.mark.parametrize(("method", "theirs"), [(layer_cam, "LayerCAM"), (hires_cam, "HiResCAM")])
@pytest.mark.parametrize("layer", [1, 3])
def test_equal_to_pytorch_grad_cam(network, case, peer, method, theirs, layer):  # noqa: F811
    _, x, y = case
    model, x = tail_with_kinks(network).float(), x.float()
    seen = peer(theirs, model, [model.module[layer]], x, y)
    shown = method(model, x, y, layer=str(layer)).clamp_min(0)  # it leaves negative values out
    assert torch.allclose(as_theirs(shown, (10, 8)), seen, atol=1e-4)
    assert uf.find("interpreter", method.__name__).facts.differentiable
