"""DDN: exact on flat boundaries, the paper's algorithm word for word, and adv_lib's results."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from underfire import Classifier
from underfire.ascent.threats import ball
from underfire.attacks import ddn
from underfire.errors import InputError, Unsupported

size = ball("l2", 1).size


@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries_are_met(two_boundaries, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = ddn(model, x, y, steps=200, goal=classes)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all()) if goal is None else bool((reached == goal).all())
    # Untargeted it climbs to the likeliest class, whose boundary need not be the nearest.
    expected = torch.stack([two_boundaries.distance("l2", k) for k in (1, 2)]).gather(0, reached[None] - 1)[0]
    ratio = size(x, x_adv) / expected
    assert ratio.min() > 0.999
    assert ratio.max() < 1.25


def slow(model: Classifier, x: Tensor, y: int, goal: int | None, steps: int, levels: int | None) -> Tensor:
    """Algorithm 1 of the paper for one image, with its cross-entropy, and a look at the last iterate."""
    delta, eps, best, least = torch.zeros_like(x), 1.0, x, math.inf
    for k in range(steps + 1):
        leaf = (x + delta).requires_grad_(True)
        logits = model(leaf[None])
        won = int(logits.argmax()) != y if goal is None else int(logits.argmax()) == goal
        if won and delta.norm() < least:
            best, least = x + delta, delta.norm()
        m, t = (1, y) if goal is None else (-1, goal)
        (m * F.cross_entropy(logits, torch.tensor([t]))).backward()
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * min(k / (steps - 1), 1))) / 2
        delta = delta + alpha * leaf.grad / leaf.grad.norm()
        eps = 0.95 * eps if won else 1.05 * eps
        x_k = (x + eps * delta / delta.norm()).clamp(0, 1)
        delta = (x_k if levels is None else torch.round(x_k * (levels - 1)) / (levels - 1)) - x
    return best


@pytest.mark.parametrize("levels", [None, 256])
@pytest.mark.parametrize("targeted", [False, True])
def test_it_is_the_papers_algorithm(network, images, levels, targeted):
    model, x = network("smooth", torch.float64), (images[:3].double() * 255).round() / 255
    logits = model(x)
    y, goal = logits.topk(2, dim=1).indices.T if targeted else (logits.argmax(1), None)
    x_adv = ddn(model, x, y, goal=goal, steps=20, levels=levels)
    assert (size(x, x_adv) > 0).all()
    for i in range(len(x)):
        aim = None if goal is None else int(goal[i])
        assert torch.allclose(x_adv[i], slow(model, x[i], int(y[i]), aim, 20, levels), atol=1e-9)


def test_rounded_images_are_on_the_grid(relu_model, images):
    x = (images * 255).round() / 255
    y = relu_model(x).argmax(1)
    x_adv = ddn(relu_model, x, y, steps=40, levels=256)
    assert bool((relu_model(x_adv).argmax(1) != y).all())
    assert torch.allclose(x_adv * 255, (x_adv * 255).round(), atol=1e-4)
    assert size(x, x_adv).mean() >= size(x, ddn(relu_model, x, y, steps=40)).mean()


@pytest.mark.slow
def test_it_reaches_what_adv_lib_reaches(network, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", types.ModuleType("visdom"))
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    adv_lib = pytest.importorskip("adv_lib.attacks")
    model = network()
    y = model(images).argmax(1)
    mine, theirs = ddn(model, images, y), adv_lib.ddn(model, images, y, levels=None)
    assert bool((model(mine).argmax(1) != y).all())
    assert size(images, mine).mean() <= 1.01 * size(images, theirs).mean()


def test_only_what_is_right_is_attacked(relu_model, images):
    y = relu_model(images).argmax(1)
    y[:4] = (y[:4] + 1) % 4
    with relu_model.counting() as count:
        x_adv = ddn(relu_model, images, y, steps=10)
    assert torch.equal(x_adv[:4], images[:4])
    assert (count.forwards, count.backwards) == (6 + 2 * 11, 2 * 10)


def test_bad_numbers_are_refused(relu_model, images):
    y = relu_model(images).argmax(1)
    for options in ({"gamma": 0.0}, {"first": 0.0}, {"levels": 1}):
        with pytest.raises(InputError, match="ddn needs gamma"):
            ddn(relu_model, images, y, **options)
    with pytest.raises(Unsupported, match="norm 'linf'"):
        ddn(relu_model, images, y, norm="linf")
