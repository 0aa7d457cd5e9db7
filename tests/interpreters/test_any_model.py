"""Interpreters on models of any kind: plain functions, empty batches, other dtypes, answers that hardly change."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.interpreters.test_tokens import Tokens
from tests.networks import build_network, rand
from underfire.errors import ModelError, Unsupported
from underfire.testing.any_model import Around

Y = torch.tensor([0, 1, 3])
BLACK_BOX = {
    "occlusion": {},
    "leave_one_out": {},
    "rise": {"samples": 40, "cells": 3},
    "lime": {"superpixels": "grid", "segments": 12, "samples": 60},
    "mask": {"steps": 2, "fill": "black"},
    "gradient": {},
    "integrated_gradients": {"steps": 3},
    "smooth_grad": {"samples": 2},
    "guided_backprop": {},
    "lrp": {},
    "deep_lift": {},
    "full_grad": {},
}


@pytest.fixture(scope="module")
def model():
    return build_network("relu")


@pytest.fixture(scope="module")
def x():
    return rand(3, 3, 9, 12)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_a_plain_function_is_a_model(model, x, name):
    show = uf.find("interpreter", name).with_options(**BLACK_BOX[name])
    assert torch.allclose(show(lambda images: model(images), x, Y), show(model, x, Y), atol=1e-5)


@pytest.mark.parametrize("name", ["occlusion", "leave_one_out", "rise", "lime"])
def test_a_function_without_gradients_is_a_model(model, x, name):
    show = uf.find("interpreter", name).with_options(**BLACK_BOX[name])

    def ask(images):
        return torch.from_numpy(model(images.detach()).detach().numpy().copy())

    assert torch.allclose(show(ask, x, Y), show(model, x, Y), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["cam", "grad_cam", "grad_cam_pp", "score_cam", "smooth_grad_cam_pp", "guided_grad_cam"]
)
def test_a_plain_function_has_no_layers(model, x, name):
    with pytest.raises(Unsupported, match="function has no layers"):
        uf.find("interpreter", name)(lambda images: model(images), x, Y)


@pytest.mark.slow
def test_a_plain_function_gets_counterfactuals(model, x):
    y = model(x).argmax(1)
    assert torch.equal(uf.interpreters.counterfactual(model.forward, x, y), uf.interpreters.counterfactual(model, x, y))


@pytest.mark.parametrize("superpixels", ["quickshift", "slic", "grid"])
def test_lime_of_no_images(model, superpixels):
    shown = uf.interpreters.lime(model, rand(0, 3, 32, 32), Y[:0], superpixels=superpixels)
    assert shown.shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smooth_grad", {"samples": 5}),
        ("smooth_grad_cam_pp", {"samples": 5, "layer": "1"}),
        ("mask", {"steps": 3, "variant": "gildenblat", "cells": 4}),
        ("mask", {"steps": 3, "variant": "adv2_v2", "cells": 4, "fill": "black"}),
        ("rise", {"samples": 20, "cells": 3}),
        ("lime", {"superpixels": "grid", "segments": 12, "samples": 60}),
    ],
)
def test_default_noise_is_equal_in_every_dtype(x, name, options):
    show = uf.find("interpreter", name).with_options(**options)
    maps = [show(build_network("relu", dtype), x.to(dtype), Y).double() for dtype in (torch.float32, torch.float64)]
    assert torch.allclose(*maps, atol=1e-3 * float(maps[1].abs().max()))


@pytest.mark.parametrize(("name", "options"), [("score_cam", {}), ("score_cam", {"softmax": False}), ("mask", {})])
def test_an_answer_that_hardly_changes_is_said(model, x, name, options):
    class Deaf(nn.Module):
        """Answer with biases and almost nothing of the image, as some networks with random weights do."""

        def __init__(self):
            super().__init__()
            self.body = build_network("relu").module

        def forward(self, z):
            return 1e-9 * self.body(z) + torch.tensor([0.1, 0.2, 0.3, 0.6])

    show = uf.find("interpreter", name).with_options(**options)
    with pytest.raises(ModelError, match="changes"):
        show(uf.Classifier(Deaf().eval()), x, Y)
    assert bool(show(model, x, Y, **({"steps": 2, "fill": "black"} if name == "mask" else {})).any())


def test_score_cam_weighs_features_and_not_the_maps_of_classes(x):
    """In SqueezeNet, the last spatial layer has one channel for each class."""
    torch.manual_seed(0)
    body = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = uf.Classifier(nn.Sequential(*body).eval())
    shown = uf.interpreters.score_cam(model, x, Y)
    assert torch.equal(shown, uf.interpreters.score_cam(model, x, Y, layer="1"))


@pytest.mark.parametrize("layer", [None, "embed", "blocks.1.norm1"])
def test_score_cam_needs_no_gradient(model, x, layer):
    if layer is not None:
        torch.manual_seed(0)
        model, x = Tokens(size=(8, 12)).eval(), x[:, :, :8]
    without = Around(model, lambda network, images: network(images.detach()).detach())
    inside = None if layer is None else f"network.{layer}"
    shown = uf.interpreters.score_cam(without, x, Y, layer=inside)
    assert torch.equal(shown, uf.interpreters.score_cam(model, x, Y, layer=layer)) and bool(shown.any())
    with pytest.raises(Unsupported, match="no gradient"):
        uf.interpreters.grad_cam(without, x, Y, layer=inside)


class Writing(nn.Module):
    """A network that changes its tensors in place, or makes new ones."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place, self.stem, self.body = in_place, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, x):
        if self.in_place:
            x -= 0.4
            z = self.stem(x.div_(0.3)).relu_()
            y = nn.functional.silu(self.norm(self.body(z)), inplace=True)
            y += z
            y *= 2
        else:
            z = self.stem((x - 0.4) / 0.3).relu()
            y = 2 * (nn.functional.silu(self.norm(self.body(z))) + z)
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("name", ["lrp", "deep_lift", "full_grad"])
def test_a_network_may_write_into_its_tensors(x, name):
    maps, slopes = [], []
    for in_place in (True, False):
        point = x.double().requires_grad_()
        maps.append(uf.find("interpreter", name)(uf.Classifier(Writing(in_place).double().eval()), point, Y))
        slopes += torch.autograd.grad(maps[-1].square().sum(), point)
    assert torch.allclose(*maps) and torch.allclose(*slopes) and bool(maps[0].any())
