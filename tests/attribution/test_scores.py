"""Inner neurons, classes, how many images go at once, and what is computed again on the way back."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

import underfire as uf
from underfire.attribution.chunks import chunk_within, in_chunks
from underfire.attribution.scores import class_score, score
from underfire.errors import DataError, InputError, ModelError
from underfire.hooks import shared_forward, smooth_relu


@pytest.fixture
def x(generator):
    return torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64)


def test_a_neuron_is_read_where_it_says(network, x):
    model, y = network("relu", torch.float64), torch.zeros(3, dtype=torch.int64)
    features = model.module[:3]((x - 0.5) / 0.25)
    assert torch.allclose(score(model, x, y, "2:5"), features[:, 5].mean((1, 2)))
    assert torch.allclose(score(model, x, y, "2:5,1,3"), features[:, 5, 1, 3])
    assert torch.allclose(score(model, x, y, "5:7"), features.relu().mean((2, 3))[:, 7])
    assert torch.equal(score(model, x, y), model(x)[:, 0])
    point = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(score(model, point, y, "2:5,1,3").sum(), point)
    assert torch.allclose(uf.interpreters.gradient(model, x, y, neuron="2:5,1,3", absolute=False), g.sum(1, True))


@pytest.mark.parametrize(
    ("neuron", "error", "message"),
    [
        ("2", InputError, "neuron must be LAYER:UNIT"),
        ("2:5,1", InputError, "neuron must be LAYER:UNIT"),
        ("2:x", InputError, "neuron must be LAYER:UNIT"),
        ("2:8", InputError, r"outside layer '2', which gives \(8, 4, 4\) an image"),
        ("5:1,2,3", ModelError, "without rows and columns"),
        ("nine:1", ModelError, "no layer 'nine'"),
    ],
)
def test_a_neuron_that_is_not_there(network, x, neuron, error, message):
    with pytest.raises(error, match=message):
        score(network("relu", torch.float64), x, torch.zeros(3, dtype=torch.int64), neuron)


def test_a_chunk_within_memory():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 2))
    x = torch.zeros(1, 1, 16, 16)
    image, features = 256 * 4, 4 * 256 * 4
    with_gradients = image + features + 2 * 2 * features  # what both layers hold, and twice what the second moves
    assert chunk_within(model, x, 1, gradients=True) == 2**20 // with_gradients
    assert chunk_within(model, x, 1, gradients=False) == 2**20 // (2 * features)
    # without gradients, on a CPU: 6 MiB for a layer of small images, and up to six larger images in 24 MiB
    assert chunk_within(model, x, gradients=False) == 6 * 2**20 // (2 * features)
    large = nn.Conv2d(1, 64, 1)
    assert chunk_within(large, torch.zeros(1, 1, 128, 128), gradients=False) == 24 // (4 * 65 / 64)
    assert chunk_within(large, torch.zeros(1, 1, 110, 110), gradients=False) == 6
    with pytest.raises(InputError, match="memory of 0.001 MiB"):
        chunk_within(model, x, 0.001, gradients=True)


def test_chunks_join_to_the_whole_and_pass_gradients():
    z = torch.arange(7.0, requires_grad=True)
    for chunk in (1, 3, 7, 100):
        joined = in_chunks(lambda i: z[i] ** 2, 7, chunk, attached=True)
        assert torch.equal(joined, z**2)
        (g,) = torch.autograd.grad(joined.sum(), z)
        assert torch.equal(g, 2 * z)
    with pytest.raises(InputError, match="chunk .* at least 1"):
        in_chunks(lambda i: z[i], 7, 0)


def test_classes_that_do_not_fit_are_said(network, x):
    logits = torch.zeros(3, 4)
    with pytest.raises(DataError, match="class -1 .* 4 classes"):
        class_score(logits, torch.tensor([0, -1, 3]))
    with pytest.raises(DataError, match="on meta, .* on cpu"):
        class_score(logits, torch.zeros(3, dtype=torch.int64, device="meta"))


BACK = {
    "gradient": {},
    "integrated_gradients": {"steps": 3},
    "integrated_gradients, exact": {"steps": 3, "double_backward": "exact", "chunk": 2},
    "smooth_grad": {"samples": 3, "chunk": 2},
    "guided_backprop": {"double_backward": "exact"},
    "score_cam": {"chunk": 4},
    "smooth_grad_cam_pp": {"samples": 3, "chunk": 2, "layer": "1"},
}


@pytest.mark.parametrize("name", BACK)
def test_the_way_back_may_begin_outside_the_bend(network, x, name):
    """What is computed again there is bent as it was, and what was not bent is not."""
    model, y = network("relu", torch.float64), torch.tensor([0, 1, 2])
    show = uf.find("interpreter", name.split(",")[0]).with_options(**BACK[name])

    def slope(bent, way_back, show=show):
        point = x.clone().requires_grad_()
        with smooth_relu(1e-2) if bent else nullcontext():
            shown = show(model, point, y).square().sum()
        with smooth_relu(1e-2) if way_back else nullcontext():
            return torch.autograd.grad(shown, point)[0]

    inside = slope(True, True)
    assert torch.allclose(slope(True, False), inside) and bool((inside != 0).any())
    assert torch.allclose(slope(False, True), slope(False, False))
    if "chunk" in BACK[name]:  # nothing is made again
        assert torch.allclose(slope(True, True, partial(show, chunk=1000)), inside)


@pytest.mark.parametrize("name", BACK)
def test_a_pass_shared_with_others_is_not_forgotten(network, x, name):
    model, y = network("relu", torch.float64), torch.tensor([0, 1, 2])
    show = uf.find("interpreter", name.split(",")[0]).with_options(**BACK[name])
    point = x.clone().requires_grad_()
    wanted = show(model, point, y)  # finds out what it must know about the model
    with model.counting() as count, shared_forward(model):
        model(point)
        shown = show(model, point, y)
        assert torch.equal(shown, wanted)
        torch.autograd.grad(shown.sum(), point)
        before = count.forwards
        model(point)
        assert count.forwards == before


@pytest.mark.parametrize("name", BACK)
def test_no_images(network, x, name):
    show = uf.find("interpreter", name.split(",")[0]).with_options(**BACK[name])
    assert len(show(network("relu", torch.float64), x[:0], torch.zeros(0, dtype=torch.int64))) == 0


@pytest.mark.parametrize("name", ["gradient", "smooth_grad", "smooth_grad_cam_pp"])
def test_half_precision_keeps_what_is_small(network, x, name):
    """A slope along a map's small gradient, and third powers of it, are below what half precision can hold."""
    model, y = network("smooth", torch.float32), torch.tensor([0, 1, 2])
    show = uf.find("interpreter", name).with_options(**BACK[name])
    slopes = []
    for dtype in (torch.float32, torch.float16):
        point = x.to(dtype).requires_grad_()
        shown = show(model.to(dtype), point, y)
        slopes.append(torch.autograd.grad(shown.float().sum() * 1e-2, point)[0].float().flatten())
    assert torch.cosine_similarity(*slopes, dim=0) > 0.9


def test_twice_takes_twice_the_memory(network, x):
    model = network("relu", torch.float64)
    once = chunk_within(model, x, 4, gradients=True)
    assert chunk_within(model, x, 4, gradients=True, twice=True) == once // 2
