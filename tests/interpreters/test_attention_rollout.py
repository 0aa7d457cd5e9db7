"""Attention rollout: against the paper, in every form of attention, and refused where there is none."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.interpreters.architectures import SIDE, classifier
from tests.interpreters.test_tokens import ChannelsLast, Pooled, Tokens, build
from tests.networks import rand, randn
from underfire.errors import InputError, Unsupported
from underfire.interpreters import attention_rollout

Y = torch.tensor([0, 3])


@pytest.fixture
def x():
    return rand(2, 3, 16, 24, dtype=torch.float64)


def weights_of(model, x):
    """The weights of every block `[B, heads, N, N]`, as nn.MultiheadAttention gives them."""
    body, found = model.module, []
    z = body.embed(x).flatten(2).transpose(1, 2)
    z = z if body.first is None else torch.cat([body.first.expand(len(z), -1, -1), z], 1)
    z = z + body.places
    for block in body.blocks:
        n = block.norm1(z)
        found.append(block.self_attn(n, n, n, average_attn_weights=False)[1].detach().numpy())
        z = block(z)
    return found


def word_for_word(weights, rows, extra, *, fusion="mean", discard=0.0, residual=0.5):
    """One image and one block at a time."""
    out = []
    for i in range(len(weights[0])):
        rollout = np.eye(weights[0].shape[-1])
        for block in weights:
            fused = getattr(block[i], fusion)(axis=0)
            drop = np.argsort(fused, axis=None)[: int(discard * fused.size)]
            fused.ravel()[drop] = 0
            total = residual * np.eye(len(fused)) + (1 - residual) * fused
            rollout = (total / total.sum(1, keepdims=True)) @ rollout
        out.append(rollout[rows].mean(0)[extra:].reshape(1, 4, 6))
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"fusion": "max"}, {"fusion": "min", "discard": 0.3}, {"discard": 0.9}, {"residual": 0.0}]
)
def test_word_for_word(x, class_token, options):
    """With a class token, it is its row; without, the mean of all rows, since the head reads their mean."""
    model = build(class_token=class_token)
    rows = [0] if class_token else list(range(24))
    wanted = word_for_word(weights_of(model, x), rows, int(class_token), **options)
    shown = attention_rollout(model, x, Y, **options)
    assert torch.allclose(shown, wanted) and shown.shape == (2, 1, 4, 6)


def test_the_map_is_the_same_for_all_classes_and_a_share_of_one(x):
    model = build()
    shown = attention_rollout(model, x, Y)
    assert torch.equal(shown, attention_rollout(model, x, 1 + 0 * Y)) and bool((shown > 0).all())
    assert bool((shown.sum((1, 2, 3)) < 1).all())  # the class token keeps the rest
    assert torch.allclose(attention_rollout(build(class_token=False), x, Y).sum((1, 2, 3)), torch.ones(2).double())


@pytest.mark.parametrize("heads_first", [True, False])
def test_one_query_that_pools_the_tokens(x, heads_first):
    """Its weights are the row; the network computes attention by a softmax of its own."""
    model = build(Pooled, heads_first=heads_first)
    seen = []
    model.module.drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    shown = attention_rollout(model, x, Y)
    inner = word_for_word_matrix(weights_of(model, x))
    wanted = (seen[-1].mean(1) @ inner).view(2, 1, 4, 6)
    assert torch.allclose(shown, wanted)


def word_for_word_matrix(weights):
    rollout = torch.eye(24).double()
    for block in weights:
        rollout = (torch.eye(24).double() + torch.from_numpy(block).mean(1)) / 2 @ rollout
    return rollout


class Kernel(nn.Module):
    """Two blocks of attention on patches: by the fused kernel, in `nn.MultiheadAttention`, or written out."""

    def __init__(self, form):
        super().__init__()
        self.form, self.embed, self.head = form, nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
        self.blocks = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        z = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            z = self.norm(z + self.attend(block, z))
        return self.head(z.mean(1))

    def attend(self, block, z):
        if self.form == "module":
            return block(z, z, z, need_weights=False)[0]
        q, k, v = (
            t.unflatten(2, (2, 4)).transpose(1, 2)
            for t in F.linear(z, block.in_proj_weight, block.in_proj_bias).chunk(3, 2)
        )
        if self.form == "kernel":
            out = F.scaled_dot_product_attention(q, k, v)
        elif self.form == "written out":
            out = (q @ k.mT / 2).softmax(-1) @ v
        else:
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
            out = torch.bmm(F.softmax(torch.bmm(q, k.mT) / 2, dim=-1), v).unflatten(0, (-1, 2))
        return block.out_proj(out.transpose(1, 2).flatten(2))


def test_every_form_of_attention_gives_the_same_map(x):
    maps, slopes = [], []
    for form in ("module", "kernel", "written out", "heads in the batch"):
        point = x.clone().requires_grad_()
        maps.append(attention_rollout(build(Kernel, form=form), point, Y))
        slopes += torch.autograd.grad((randn(2, 1, 4, 6, dtype=torch.float64) * maps[-1]).sum(), point)
    assert all(torch.allclose(m, maps[0]) for m in maps) and all(torch.allclose(s, slopes[0]) for s in slopes)
    assert bool(slopes[0].any())


def test_the_derivative_of_the_map_is_right(x):
    model = build()
    probe, direction = randn(2, 1, 4, 6, dtype=x.dtype), randn(*x.shape, seed=1, dtype=x.dtype)
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad((probe * attention_rollout(model, point, Y, discard=0.2)).sum(), point)
    ahead, behind = (attention_rollout(model, x + s * direction, Y, discard=0.2) for s in (1e-6, -1e-6))
    assert torch.allclose((slope * direction).sum(), (probe * (ahead - behind)).sum() / 2e-6, rtol=1e-5)


def test_no_other_network_is_explained(x, network):
    for model in (network("relu", torch.float64), build(ChannelsLast)):
        with pytest.raises(Unsupported, match="needs a transformer"):
            attention_rollout(model, x, Y)
    model = build(Tokens)
    for wrong, error in (
        ({"discard": 1.0}, InputError),
        ({"residual": -0.1}, InputError),
        ({"fusion": "sum"}, Unsupported),
    ):
        with pytest.raises(error, match="discard|fusion"):
            attention_rollout(model, x, Y, **wrong)


READ = (
    "torchvision vit",
    "timm vit, class token",
    "timm vit, registers and normalised queries",
    "timm vit, mean of patches",
    "timm vit, pooled by attention",
    "transformers vit",
    "transformers deit",
    "transformers beit",
)
REFUSED = ("timm cait", "timm swin", "torchvision swin", "timm pvt v2", "timm mixer", "torchvision squeezenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", READ + REFUSED)
def test_other_peoples_networks(name):
    model, x = classifier(name), rand(2, 3, SIDE, SIDE)
    if name in REFUSED:
        with pytest.raises(Unsupported, match="needs a transformer"):
            attention_rollout(model, x, Y)
    else:
        shown = attention_rollout(model, x, Y)
        assert shown.shape == (2, 1, 4, 4) and bool((shown > 0).all()) and bool((shown.sum((1, 2, 3)) < 1.001).all())
