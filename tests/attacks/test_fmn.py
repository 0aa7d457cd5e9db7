"""FMN: exact on flat boundaries, the paper's algorithm word for word, and adv_lib's results."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import Tensor

from underfire import Classifier
from underfire.ascent.threats import ball
from underfire.attacks import fmn
from underfire.errors import InputError

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

NORMS = {"l2": 2.0, "linf": math.inf, "l1": 1.0, "l0": 0.0}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries_are_met(two_boundaries, norm, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = fmn(model, x, y, norm=norm, steps=300, goal=classes)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all()) if goal is None else bool((reached == goal).all())
    # Untargeted it climbs to the class that leads, whose boundary need not be the nearest.
    expected = torch.stack([two_boundaries.distance(norm, k) for k in (1, 2)]).gather(0, reached[None] - 1)[0]
    ratio = ball(norm, 1).size(x, x_adv) / expected
    assert ratio.min() > 0.999
    assert ratio.max() < 1.01


def slow(model: Classifier, x: Tensor, y: int, norm: str, steps: int) -> tuple[Tensor, float]:
    """Algorithm 1 of the paper for one image, with alpha from 0.3 to 0.003 and gamma from 0.05 to 0.001."""
    p, q = NORMS[norm], {"l2": 2, "linf": 1, "l1": math.inf}[norm]
    delta, best, best_size, eps, found = torch.zeros_like(x), x, math.inf, 0.0, False
    for k in range(steps + 1):
        h = (1 + math.cos(math.pi * k / (steps - 1))) / 2
        alpha, gamma = 0.003 + 0.297 * h, 0.001 + 0.049 * h
        leaf = delta.clone().requires_grad_(True)
        logits = model((x + leaf)[None])[0]
        loss = torch.cat([logits[:y], logits[y + 1 :]]).max() - logits[y]
        loss.backward()
        loss, g, size = float(loss.detach()), leaf.grad, float(torch.linalg.vector_norm(delta.flatten(), p))
        if loss > 0:
            found = True
            if size < best_size:
                best, best_size = x + delta, size
        if k == steps:
            break
        if loss > 0:
            eps = min(eps * (1 - gamma), best_size)
        elif found:
            eps *= 1 + gamma
        else:
            eps = 1.001 * (size - loss / float(torch.linalg.vector_norm(g.flatten(), q)))
        delta = delta + alpha * g / g.norm()
        flat, order = delta.flatten(), delta.flatten().abs().argsort(descending=True)
        if norm == "l2":
            flat = flat * min(1, eps / float(flat.norm()))
        elif norm == "linf":
            flat = flat.clamp(-eps, eps)
        elif flat.abs().sum() > eps:
            # The threshold of the simplex projection (Duchi et al.): the last entry that stays above it says it.
            top = flat.abs()[order]
            cuts = (top.cumsum(0) - eps) / torch.arange(1, len(top) + 1)
            flat = flat.sign() * (flat.abs() - cuts[top > cuts][-1]).clamp_min(0)
        delta = (x + flat.view_as(x)).clamp(0, 1) - x
    return best, best_size


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_it_is_the_papers_algorithm(network, images, norm):
    """Where the box is not met; there, projecting and then clipping is not the nearest point."""
    model, x = network("smooth", torch.float64), 0.4 + 0.2 * images[:3].double()
    y = model(x).argmax(1)
    x_adv = fmn(model, x, y, norm=norm, steps=15, step_size=0.3)
    for i in range(len(x)):
        best, size = slow(model, x[i], int(y[i]), norm, 15)
        assert size < math.inf
        assert ((best > 0) & (best < 1)).all()
        assert torch.allclose(x_adv[i], best, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_it_reaches_what_adv_lib_reaches(network, images, norm, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", types.ModuleType("visdom"))
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    adv_lib = pytest.importorskip("adv_lib.attacks")
    model = network()
    y = model(images).argmax(1)
    mine = fmn(model, images, y, norm=norm, steps=100)
    theirs = adv_lib.fmn(model, images, y, norm=NORMS[norm], steps=100)
    assert bool((model(mine).argmax(1) != y).all())
    size = ball(norm, 1).size
    assert size(images, mine).mean() <= 1.01 * size(images, theirs).mean()


def test_the_scale_of_the_logits_changes_nothing(network, images):
    model = network("relu", torch.float64)
    y = model(images.double()).argmax(1)
    before = fmn(model, images.double(), y, steps=30)
    with torch.no_grad():
        model.module[-1].weight.mul_(1e4)
        model.module[-1].bias.mul_(1e4)
    assert torch.allclose(fmn(model, images.double(), y, steps=30), before, atol=1e-9)


def test_only_what_is_right_is_attacked(relu_model, images):
    y = relu_model(images).argmax(1)
    y[:4] = (y[:4] + 1) % 4
    with relu_model.counting() as count:
        x_adv = fmn(relu_model, images, y, steps=10)
    assert torch.equal(x_adv[:4], images[:4])
    # the pass of the clean images is that of the first step; the last iterate needs no gradient
    assert (count.forwards, count.backwards) == (6 + 2 * 10, 6 + 2 * 9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_start_saves_the_search_for_a_success(relu_model, images, norm):
    y = relu_model(images).argmax(1)
    start = fmn(relu_model, images, y, norm=norm, steps=40)
    far = (images + 3 * (start - images)).clamp(0, 1)
    usable = relu_model(far).argmax(1) != y
    assert usable.any()
    far[usable.nonzero()[0]] = images[usable.nonzero()[0]]  # one that does not succeed is left alone
    usable = relu_model(far).argmax(1) != y
    x_adv = fmn(relu_model, images, y, norm=norm, steps=1, start=far)
    assert bool((relu_model(x_adv).argmax(1) != y)[usable].all())
    size = ball(norm, 1).size
    assert (size(images, x_adv) <= size(images, far) * (1 + 1e-5))[usable].all()


def test_bad_numbers_are_refused(relu_model, images):
    y = relu_model(images).argmax(1)
    for words, options in {
        "gamma in": {"gamma": 1.0},
        "step_size > 0": {"step_size": 0.0},
        "start must be shaped": {"start": images[:2]},
    }.items():
        with pytest.raises(InputError, match=words):
            fmn(relu_model, images, y, **options)
