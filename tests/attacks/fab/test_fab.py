"""FAB: exact on linear models; a slow loop after the paper, one image at a time; what leaves, and when."""

from __future__ import annotations

import sys

import pytest
import torch

import underfire as uf
from tests.networks import centred_linear, rand, randn
from underfire.ascent.threats import ball
from underfire.attacks.fab.planes import onto_plane
from underfire.errors import InputError, Unsupported
from underfire.measures import perturbation

NORMS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}
every_norm = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture
def linear():
    model = centred_linear(randn(5, 48, seed=2, dtype=torch.float64))
    x = 0.4 + 0.2 * rand(7, 3, 4, 4, seed=3, dtype=torch.float64)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def exact(model, x, y, classes, norm):
    """Per class, how far its boundary with `y` is: the shortest way onto the plane, inside the box."""
    logits, sizes = model(x).detach(), []
    for c in classes.T:
        w = (model[1].weight[c] - model[1].weight[y]).detach().view_as(x)
        lack = (logits.gather(1, y[:, None]) - logits.gather(1, c[:, None])).squeeze(1)
        sizes.append(getattr(perturbation, norm)(x, x + onto_plane(x, w, lack, ball(norm, 0))))
    return torch.stack(sizes, 1)


@every_norm
@pytest.mark.parametrize("boundaries", ["nearest", "each"])
def test_the_nearest_point_of_a_linear_model(linear, norm, boundaries):
    model, x, y = linear
    x = x.clone()
    x[:, :, 0] = (x[:, :, 0] > 0.5).double()  # a row of pixels at the border of the box
    y = model(x).argmax(1)
    others = model(x).scatter(1, y[:, None], float("-inf")).topk(4, dim=1).indices
    x_adv = uf.attacks.fab(model, x, y, norm=norm, steps=30, boundaries=boundaries)
    assert (model(x_adv).argmax(1) != y).all()
    ratio = getattr(perturbation, norm)(x, x_adv) / exact(model, x, y, others, norm).amin(1)
    assert ((ratio >= 1 - 1e-9) & (ratio <= 1.02)).all()


@every_norm
def test_a_goal_is_reached(linear, norm):
    """Never nearer than its boundary with the label, and just there where no third class is in between."""
    model, x, y = linear
    goal = model(x).topk(2, dim=1).indices[:, 1]
    x_adv = uf.attacks.fab(model, x, y, goal=goal, norm=norm, steps=40)
    assert torch.equal(model(x_adv).argmax(1), goal)
    ratio = getattr(perturbation, norm)(x, x_adv) / exact(model, x, y, goal[:, None], norm).squeeze(1)
    assert (ratio >= 1 - 1e-9).all()
    assert (ratio <= 1.05).sum() >= 5


def slow(model, x, y, norm, steps):
    """Algorithm 1 without its final search, one image, all classes."""
    order = NORMS[norm]
    dual = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    z, best, nearest = x, x, float("inf")
    for _ in range(steps):
        planes = []
        for c in range(4):
            if c == int(y):
                continue
            leaf = z.detach().requires_grad_()
            logits = model(leaf[None])[0]
            f = logits[c] - logits[y]
            (w,) = torch.autograd.grad(f, leaf)
            planes.append((float(f.detach().abs() / w.flatten().norm(dual)), float(f.detach()), w))
        _, f, w = min(planes, key=lambda plane: plane[0])
        b = f - float((w * z).sum())  # the plane is <w, .> + b = 0
        d_1, d_2 = (
            onto_plane(p[None], w[None], torch.tensor([-b - float((w * p).sum())], dtype=x.dtype), ball(norm, 0))[0]
            for p in (z, x)
        )
        size_1, size_2 = (max(float(d.flatten().norm(order)), 1e-8) for d in (d_1, d_2))
        alpha = min(size_1 / (size_1 + size_2), 0.1)
        z = ((1 - alpha) * (z + 1.05 * d_1) + alpha * (x + 1.05 * d_2)).clamp(0, 1)
        if int(model(z[None]).argmax()) != int(y):
            size = float((z - x).flatten().norm(order))
            if size < nearest:
                nearest, best = size, z
            z = x + 0.9 * (z - x)
    return nearest, best


@every_norm
def test_algorithm_1(network, norm):
    model = network("relu", torch.float64)
    x = rand(4, 3, 6, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    found = getattr(perturbation, norm)(x, uf.attacks.fab(model, x, y, norm=norm, steps=12))
    wanted = torch.tensor([slow(model, x[i], y[i], norm, 12)[0] for i in range(4)], dtype=torch.float64)
    assert (found <= wanted + 1e-9).all()  # the final search only shortens
    assert torch.allclose(found, wanted, rtol=0.05)


@every_norm
def test_the_final_search_only_shortens_and_the_loop_is_the_papers(network, norm, monkeypatch):
    monkeypatch.setattr(sys.modules["underfire.attacks.fab.attack"], "_final_search", lambda *_: None)
    model = network("relu", torch.float64)
    x = rand(4, 3, 6, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    x_adv = uf.attacks.fab(model, x, y, norm=norm, steps=12)
    for i in range(4):
        assert torch.allclose(x_adv[i], slow(model, x[i], y[i], norm, 12)[1], atol=1e-9)


def test_what_succeeded_within_eps_leaves_and_what_eps_is_too_small_for_comes_back_clean(linear):
    model, x, y = linear
    model = uf.Classifier(model)
    size = perturbation.linf(x, uf.attacks.fab(model, x, y, steps=30))
    eps = torch.where(torch.arange(7) < 5, 1.5 * size, 0.9 * size)
    with model.counting() as count:
        x_adv = uf.attacks.fab(model, x, y, eps=eps, steps=30, keep="success")
    assert perturbation.within(x, x_adv, "linf", eps).all()
    assert (model(x_adv).argmax(1) != y).tolist() == [True] * 5 + [False] * 2
    assert torch.equal(x_adv[5:], x[5:])
    assert count.backwards <= 4 * (2 * 30 + 5 * 3)  # four classes, a backward pass each
    assert count.forwards <= 7 + 2 * (2 * 30 + 5 * 3)


@pytest.mark.slow
def test_patience_ends_what_eps_is_out_of_reach_for_and_nothing_else(linear):
    model, x, y = linear
    model = uf.Classifier(model)
    size = perturbation.linf(x, uf.attacks.fab(model, x, y, steps=30))
    eps = torch.where(torch.arange(7) < 3, size * 0.8, size * 0.5)  # 1 / 0.8 is below 1.5
    passes, results = [], []
    for patience in (None, 5):
        with model.counting() as count:
            results.append(uf.attacks.fab(model, x, y, eps=eps, steps=30, patience=patience))
        passes.append(count.backwards)
    assert passes[0] == 4 * 7 * 30
    assert 4 * (3 * 30 + 4 * 5) < passes[1] < 4 * (3 * 30 + 4 * 12)
    assert torch.equal(*results)


def test_restarts_never_lose(network):
    model = network()
    x = rand(6, 3, 6, 6)
    y = model(x).argmax(1)
    one, three = (
        uf.attacks.fab(model, x, y, steps=6, restarts=n, generator=torch.Generator().manual_seed(1)) for n in (1, 3)
    )
    one, three = perturbation.linf(x, one), perturbation.linf(x, three)
    assert (three <= one + 1e-7).all()


def test_bad_settings(linear):
    model, x, y = linear
    with pytest.raises(Unsupported, match="nearest, each"):
        uf.attacks.fab(model, x, y, boundaries="all")
    with pytest.raises(InputError, match="eta >= 1"):
        uf.attacks.fab(model, x, y, eta=0.9)
