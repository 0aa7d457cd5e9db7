"""C&W: the nearest point of flat boundaries, the paper's loop word for word, searches of samples apart."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor

from tests.networks import linear, randn
from underfire import Classifier, data, models
from underfire.ascent.binary_search import BinarySearch
from underfire.ascent.objectives import margin
from underfire.ascent.threats import ball
from underfire.attacks import carlini_wagner
from underfire.errors import InputError

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

QUICK = {"l2": {"steps": 150, "binary_search_steps": 6}, "linf": {"steps": 60}, "l0": {"steps": 25}}


@pytest.mark.parametrize("norm", ["l2", "linf", "l0"])
@pytest.mark.parametrize("goal", [None, 2])
def test_flat_boundaries(two_boundaries, norm, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = carlini_wagner(model, x, y, norm=norm, goal=classes, **QUICK[norm])
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all() if goal is None else (reached == goal).all())
    ratio = ball(norm, 1).size(x, x_adv) / two_boundaries.distance(norm, goal)
    assert (ratio >= 1 - 1e-9).all()
    assert float(ratio.median()) <= (1.05 if norm == "l2" else 1.25)


def slow(model: Classifier, x: Tensor, y: int, searches: int, steps: int) -> Tensor:
    """The L2 attack of one image: tanh space (of which the box is 99 %), torch's Adam, a search over c, no abort."""
    best, best_size, low, high, c = x, float("inf"), 0.0, float("inf"), 10.0
    for _ in range(searches):
        w = torch.atanh((2 * x - 1) * 0.99).requires_grad_()
        adam, reached = torch.optim.Adam([w], lr=0.1), False
        for _ in range(steps):
            x_adv = (torch.tanh(w) / 0.99 + 1) / 2
            logits = model(x_adv[None])[0]
            other = max(float(v) for k, v in enumerate(logits.detach()) if k != y)
            rival = logits.detach().tolist().index(other)
            size = (x_adv - x).square().sum()
            if other > float(logits[y].detach()):
                reached = True
                if float(size.detach()) < best_size:
                    best, best_size = x_adv.detach(), float(size.detach())
            adam.zero_grad()
            (size + c * (logits[y] - logits[rival]).clamp_min(0)).backward()
            adam.step()
        low, high = (low, c) if reached else (c, high)
        c = 10 * c if high == float("inf") else (low + high) / 2
    return best


def test_l2_is_the_papers_loop(network, images):
    model, x = network("smooth", torch.float64), images.double()[:2]
    y = model(x).argmax(1)
    x_adv = carlini_wagner(model, x, y, steps=20, binary_search_steps=3, step_size=0.1, c=10.0, abort_early=False)
    assert bool((model(x_adv).argmax(1) != y).all())
    for i in range(2):
        assert torch.allclose(x_adv[i], slow(model, x[i], int(y[i]), 3, 20), atol=1e-9)


def test_every_sample_has_a_search_of_its_own():
    weights = BinarySearch(torch.zeros(3, 1, 2, 2), 1.0)
    everyone = torch.arange(3)
    for reached in ([True, False, False], [True, True, False]):
        weights.update(torch.tensor(reached), everyone)
    assert weights.c.tolist() == [0.25, 5.5, 100.0]
    weights.update(torch.tensor([False]), torch.tensor([0]))
    assert weights.c.tolist() == [0.375, 5.5, 100.0]


def test_stalled_runs_cost_nothing_more(two_boundaries):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    with model.counting() as full:
        carlini_wagner(model, x, y, steps=100, binary_search_steps=4, abort_early=False)
    assert full.backwards == 6 * 4 * 100
    with model.counting() as short:
        x_adv = carlini_wagner(model, x, y, steps=100, binary_search_steps=4)
    assert short.backwards < full.backwards
    assert bool((model(x_adv).argmax(1) != y).all())


@pytest.mark.parametrize("norm", ["l2", "linf", "l0"])
def test_confidence_is_kept(two_boundaries, norm):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    x_adv = carlini_wagner(model, x, y, norm=norm, confidence=0.7, **QUICK[norm])
    logits = model(x_adv)
    assert bool((logits[:, 1:].amax(1) - logits[:, 0] >= 0.7).all())


@pytest.mark.parametrize("function", range(1, 8))
def test_all_seven_functions_fool(two_boundaries, function):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    x_adv = carlini_wagner(model, x, y, function=function, c=1.0, steps=100, binary_search_steps=4)
    assert bool((model(x_adv).argmax(1) != y).all())
    assert float((ball("l2", 1).size(x, x_adv) / two_boundaries.distance("l2")).median()) <= 1.3


def test_any_objective_will_do(two_boundaries):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    x_adv = carlini_wagner(model, x, y, objective=margin(), steps=100, binary_search_steps=6)
    assert bool((model(x_adv).argmax(1) != y).all())


@pytest.mark.slow
def test_black_and_white_pixels_are_not_frozen():
    """Every pixel is 0 or 1; the nearest point of the boundary between two classes, which meets the box, is known."""
    draw = torch.Generator().manual_seed(3)
    x = (torch.rand(6, 1, 8, 8, generator=draw) > 0.7).double()
    weight = 0.05 * torch.randn(2, 64, generator=draw).double()
    model = linear(weight)
    logits, flat = model(x).detach(), x.flatten(1)
    y = logits.argmax(1)
    w, gap = weight[1 - y] - weight[y], (logits.amax(1) - logits.amin(1))[:, None]
    low, high = torch.zeros_like(gap), torch.full_like(gap, 1e4)
    for _ in range(100):  # as far along w as it takes, every pixel as far as it can
        middle = (low + high) / 2
        across = (((flat + middle * w).clamp(0, 1) - flat) * w).sum(1, keepdim=True) >= gap
        low, high = torch.where(across, low, middle), torch.where(across, middle, high)
    wanted = ((flat + high * w).clamp(0, 1) - flat).norm(dim=1)
    possible = ((((w > 0).double() - flat) * w).sum(1) > 1.2 * gap[:, 0]) & (wanted > 0)
    assert possible.sum() >= 4
    x_adv = carlini_wagner(model, x[possible], y[possible], steps=300, binary_search_steps=8, abort_early=False)
    assert bool((model(x_adv).argmax(1) != y[possible]).all())
    ratio = (x_adv - x[possible]).flatten(1).norm(dim=1) / wanted[possible]
    assert float(ratio.max()) <= 1.02


def test_l0_drops_many_entries_at_once_where_few_are_needed():
    """One entry of 12,288 is enough, and the rounds do not grow with the size of the image."""
    weight = 0.01 * randn(2, 3 * 64 * 64, seed=3)
    weight[1, [5, 77]] += torch.tensor([20.0, 30.0])
    x = torch.full((2, 3, 64, 64), 0.5)
    lead = (x[0].flatten() @ (weight[1] - weight[0])).item()
    model = Classifier(linear(weight, torch.tensor([lead + 10, 0.0])))
    y = torch.zeros(2, dtype=torch.int64)
    with model.counting() as count:
        x_adv = carlini_wagner(model, x, y, norm="l0", c=1.0, steps=300)
    assert (x_adv != x).flatten(1).sum(1).tolist() == [1, 1]
    assert bool((model(x_adv).argmax(1) == 1).all())
    assert count.backwards < 2 * 1000


@pytest.mark.slow
def test_no_farther_than_adv_lib(network, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", types.ModuleType("visdom"))
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    peer = pytest.importorskip("adv_lib.attacks")
    model, x = network(), images[[0, 3, 4]]
    y = model(x).argmax(1)
    ours = carlini_wagner(model, x, y, norm="linf", steps=40, step_size=0.01)
    theirs = peer.carlini_wagner_linf(model, x, y, max_iterations=40)
    sizes = [ball("linf", 1).size(x, x_adv) for x_adv in (ours, theirs)]
    assert bool((model(ours).argmax(1) != y).all())
    assert float((sizes[0] / sizes[1]).median()) <= 1.02


def test_bad_numbers(relu_model, images):
    y = relu_model(images).argmax(1)
    for wrong in ({"step_size": 0.0}, {"c": 0.0}, {"confidence": -1.0}, {"function": 0}, {"binary_search_steps": 0}):
        with pytest.raises(InputError):
            carlini_wagner(relu_model, images, y, **wrong)


@pytest.mark.slow
def test_stalled_runs_cost_no_success_on_a_robust_network(data_root):
    """The defaults find as many images of an adversarially trained network as runs that never stop early."""
    weights = data_root / "weights/interpretability_aware/cifar10_wresnet_adv.safetensors"
    model = models.load(f"{weights}?arch=cifar10_wresnet_adv")
    batch = data.load(f"parquet:{data_root / 'cifar10-test.parquet'}", n=16, seed=3)[:]
    right = (model.predict(batch.x).argmax(1) == batch.y).nonzero().squeeze(1)[:8]
    x, y = batch.x[right], batch.y[right]
    found = {}
    for abort_early in (True, False):
        x_adv = carlini_wagner(model, x, y, binary_search_steps=5, steps=20, abort_early=abort_early)
        found[abort_early] = int((model.predict(x_adv).argmax(1) != y).sum())
    assert found[True] >= found[False] >= 6
