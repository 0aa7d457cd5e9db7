"""Inner neurons, and how many images go at once."""

import pytest
import torch
from torch import nn

import underfire as uf
from underfire.errors import InputError, ModelError
from underfire.interpreters.chunks import chunk_within, in_chunks
from underfire.interpreters.parts import score


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
        ("5:1,2,3", ModelError, "no such place"),
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
    with pytest.raises(InputError, match="memory of 0.001 MiB is too small for one image"):
        chunk_within(model, x, 0.001, gradients=True)


def test_chunks_join_to_the_whole_and_pass_gradients():
    z = torch.arange(7.0, requires_grad=True)
    for chunk in (1, 3, 7, 100):
        joined = in_chunks(lambda i: z[i] ** 2, 7, chunk, attached=True)
        assert torch.equal(joined, z**2)
        (g,) = torch.autograd.grad(joined.sum(), z)
        assert torch.equal(g, 2 * z)
    with pytest.raises(InputError, match="chunk must be at least 1"):
        in_chunks(lambda i: z[i], 7, 0)
