"""Occlusion, leave-one-out and RISE against slow loops, Captum and their expectations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand
from underfire.attribution.fills import fill_image
from underfire.errors import InputError, ModelError, Unsupported


@pytest.fixture
def case(network):
    model = network("relu", torch.float64)
    x = rand(3, 3, 11, 14, dtype=torch.float64)
    return model, x, torch.tensor([0, 3, 1])


def slow_occlusion(model, x, y, patch, stride, instead):
    """Every patch in turn; each pixel gets the mean of the drops of the patches over it."""
    rows = torch.arange(len(x))
    total, count = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])
    before = model(x)[rows, y]
    for top in range(0, x.shape[2] - patch + stride, stride):
        for left in range(0, x.shape[3] - patch + stride, stride):
            hidden, here = x.clone(), (..., slice(top, top + patch), slice(left, left + patch))
            hidden[here] = instead[here]
            total[here] += (before - model(hidden)[rows, y])[:, None, None, None]
            count[here] += 1
    return total / count


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize(("patch", "stride", "fill"), [(4, 3, "black"), (5, 5, 0.3), (11, 2, "mean"), (1, 1, "blur")])
def test_occlusion_is_a_loop_over_patches(case, patch, stride, fill, reuse):
    model, x, y = case
    wanted = slow_occlusion(model, x, y, patch, stride, fill_image(x, fill))
    shown = uf.interpreters.occlusion(model, x, y, patch=patch, stride=stride, fill=fill, reuse=reuse)
    assert torch.allclose(shown, wanted, atol=1e-10)


def test_occlusion_is_captums(case):
    captum = pytest.importorskip("captum.attr")
    model, x, y = case
    for patch, stride in ((4, 2), (4, 3), (5, 4)):
        peer = captum.Occlusion(model).attribute(
            x, target=y, sliding_window_shapes=(3, patch, patch), strides=(3, stride, stride)
        )
        shown = uf.interpreters.occlusion(model, x, y, patch=patch, stride=stride)
        assert torch.allclose(shown.expand_as(peer), peer.double(), atol=1e-6)  # which comes in float32


def test_occlusion_of_a_linear_model_is_what_the_patch_contributes():
    """With patches that do not overlap: the sum of weight times value over the patch."""
    linear = uf.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)).double())
    x = rand(2, 3, 6, 6, dtype=torch.float64)
    y = torch.tensor([2, 1])
    parts = (linear.module[1].weight[y].view_as(x) * x).sum(1, keepdim=True)
    wanted = F.interpolate(4 * F.avg_pool2d(parts, 2), scale_factor=2)
    assert torch.allclose(uf.interpreters.occlusion(linear, x, y, patch=2, stride=2), wanted)


def test_leave_one_out_is_its_definition(case):
    """phi_i = f(x)_c - f(x_(i))_c, with the probability."""
    model, x, y = case
    rows = torch.arange(len(x))
    shown = uf.interpreters.leave_one_out(model, x, y)
    assert torch.allclose(shown, uf.interpreters.leave_one_out(model, x, y, reuse=False), atol=1e-12)
    logits = uf.interpreters.leave_one_out(model, x, y, output="logit")
    for i, j in ((0, 0), (4, 7), (10, 13), (10, 0)):
        hidden = x.clone()
        hidden[:, :, i, j] = 0
        assert torch.allclose(shown[:, 0, i, j], (model(x).softmax(1) - model(hidden).softmax(1))[rows, y])
        assert torch.allclose(logits[:, 0, i, j], (model(x) - model(hidden))[rows, y])


def slow_masks(samples, cells, shown, size, generator):
    """The paper's: enlarge to one cell more than the image on either axis, and cut at a random place of a cell."""
    coarse = (torch.rand(samples, cells, cells, generator=generator) < shown).double()
    cell = [-(-n // cells) for n in size]
    cuts = [torch.randint(c, (samples,), generator=generator) for c in cell]
    large = F.interpolate(coarse[:, None], [(cells + 1) * c for c in cell], mode="bilinear", align_corners=False)
    return torch.stack([m[:, i : i + size[0], j : j + size[1]] for m, i, j in zip(large, *cuts, strict=True)])


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_rise_is_the_weighted_sum_of_its_masks(case, output):
    model, x, y = case
    options = {"samples": 50, "cells": 4, "shown": 0.3, "output": output}
    shown = uf.interpreters.rise(model, x, y, **options, generator=torch.Generator().manual_seed(5))
    masks = slow_masks(50, 4, 0.3, x.shape[2:], torch.Generator().manual_seed(5))
    wanted = torch.zeros_like(x[:, :1])
    for mask in masks:
        said = model(x * mask)
        answer = (said.softmax(1) if output == "probability" else said)[torch.arange(3), y]
        wanted += answer[:, None, None, None] * mask / (0.3 * 50)
    assert torch.allclose(shown, wanted, atol=1e-10)


def test_rise_of_a_constant_answer_is_that_answer():
    """The expectation of a mask is `shown` at every pixel, also at the border."""
    model = uf.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 80, 4)).double())
    nn.init.zeros_(model.module[1].weight)
    model.requires_grad_(False)
    x = torch.ones(1, 3, 8, 10, dtype=torch.float64)
    shown = uf.interpreters.rise(model, x, torch.tensor([1]), samples=4000, cells=3, shown=0.5)
    wanted = model(x).softmax(1)[0, 1]
    assert float((shown / wanted - 1).abs().max()) < 0.06  # four standard errors of a mean of 4,000 coins


@pytest.mark.parametrize("options", [{"samples": 0}, {"cells": 0}, {"shown": 0.0}, {"shown": 1.5}])
def test_rise_says_what_is_out_of_range(case, options):
    with pytest.raises(InputError, match="must be"):
        uf.interpreters.rise(*case, **options)


@pytest.mark.slow
def test_what_does_not_fit_is_said(case):
    model, x, y = case
    explain = uf.interpreters.occlusion
    with pytest.raises(InputError, match="patch .* 11 pixels, got 12"):
        explain(model, x, y, patch=12)
    with pytest.raises(InputError, match="stride .* 4 pixels.* got 5"):
        explain(model, x, y, patch=4, stride=5)
    with pytest.raises(Unsupported, match="fill 'white' .* black, mean, blur"):
        explain(model, x, y, fill="white")
    with pytest.raises(InputError, match=r"\[0, 1\], got 2"):
        explain(model, x, y, fill=2.0)
    with pytest.raises(Unsupported, match="'margin' .* logit, probability"):
        explain(model, x, y, output="margin")
    with pytest.raises(InputError, match="memory of 0.0001 MiB"):
        explain(model, x, y, memory=1e-4)
    for method in (explain, uf.interpreters.leave_one_out, uf.interpreters.rise):
        with torch.no_grad():
            broken = model.module[-1].bias.clone()
            model.module[-1].bias.fill_(float("nan"))
        with pytest.raises(ModelError, match="logits for 3 of 3"):
            method(model, x, y)
        with torch.no_grad():
            model.module[-1].bias.copy_(broken)


class Restless(nn.Module):
    """Its answers depend on how often it was asked, so nothing of it can be used again."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return (x.sigmoid() if self.calls == 1 else x.relu()).mean((2, 3))


def test_a_network_that_is_not_the_same_each_time_goes_through_as_a_whole(case):
    _, x, _ = case
    y = torch.tensor([0, 1, 2])
    shown = uf.interpreters.occlusion(Restless(), x, y, patch=4, stride=4)
    assert torch.allclose(shown, slow_occlusion(lambda z: z.relu().mean((2, 3)), x, y, 4, 4, torch.zeros_like(x)))


@pytest.mark.parametrize("name", ["occlusion", "leave_one_out", "rise"])
def test_a_network_that_takes_views_of_its_activations(name):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 24, 4)

        def forward(self, x):
            return self.head(self.conv(x).view(len(x), -1))

    class Reshaping(Viewing):
        def forward(self, x):
            return self.head(self.conv(x).flatten(1))

    model, same = Viewing().double(), Reshaping().double()
    same.load_state_dict(model.state_dict())
    x = rand(2, 3, 6, 8, dtype=torch.float64)
    y, method = torch.tensor([1, 3]), uf.find("interpreter", name)
    options = {"samples": 20} if name == "rise" else {}
    for point in (x, x.clone().requires_grad_()):
        assert torch.allclose(method(model, point, y, **options), method(same, point, y, **options), atol=1e-10)


@pytest.mark.parametrize("name", ["occlusion", "leave_one_out", "rise"])
def test_passes_made_again_on_the_way_back_are_the_same_ones(name):
    """In training mode and with weights that want gradients, which the way back finds as they are by then."""
    conv, norm, head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
    body = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(2), nn.AvgPool1d(24), nn.Flatten(), head).double()
    norm.running_mean += 0.1
    model, method = uf.Classifier(body).train(), uf.find("interpreter", name)
    x = rand(2, 3, 6, 8, dtype=torch.float64).requires_grad_()
    y = torch.tensor([1, 3])
    options = {"samples": 20} if name == "rise" else {}
    slopes = []
    for chunk in (1000, 5):
        shown = method(model, x, y, chunk=chunk, **options)
        slopes += torch.autograd.grad(shown.square().sum(), x)
    assert torch.allclose(*slopes, atol=1e-12)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(norm.running_mean, torch.full_like(norm.running_mean, 0.1))


@pytest.mark.parametrize("name", ["occlusion", "leave_one_out", "rise"])
def test_no_images_give_no_maps(case, name):
    model, x, y = case
    assert uf.find("interpreter", name)(model, x[:0], y[:0]).shape == (0, 1, 11, 14)


@pytest.mark.parametrize("chunk", [None, 3, 20])
def test_more_images_than_go_at_once(case, chunk):
    """Whatever the share of a chunk that is known of the image before."""
    model, x, y = case
    many, classes = torch.cat([x, x.flip(3)]), torch.cat([y, y])
    shown = uf.interpreters.occlusion(model, many, classes, patch=4, stride=3, chunk=chunk)
    wanted = uf.interpreters.occlusion(model, many, classes, patch=4, stride=3, reuse=False)
    assert torch.allclose(shown, wanted, atol=1e-10)
