"""Counterfactual images: on a linear model the smallest change is known in closed form."""

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import rand
from underfire.errors import DataError, InputError, ModelError
from underfire.interpreters import counterfactual

# one of the twenty heaviest files, and all of its networks are tiny
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_convolutions")]


class Plane(nn.Module):
    """Two classes, on the two sides of a plane."""

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = nn.Parameter(w), nn.Parameter(b)

    def forward(self, x):
        side = x.flatten(1) @ self.w + self.b
        return torch.stack([-side, side], 1)


@pytest.fixture
def plane(generator):
    w = torch.randn(48, generator=generator, dtype=torch.float64)
    x = 0.3 + 0.4 * torch.rand(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    b = -(x.flatten(1) @ w).max() - 1
    return Plane(w, b), x, torch.zeros(5, dtype=torch.int64)


def smallest(w, x, lack, beta):
    """The smallest `beta |d|_1 + |d|²` with `<w, d> = lack` inside the box: shrinkage, at the multiplier that fits."""
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e5, dtype=x.dtype)

    def change(multiplier):
        d = (multiplier * w).sign() * ((multiplier * w).abs() - beta).clamp_min(0) / 2
        return d.maximum(-x).minimum(1 - x)

    for _ in range(90):
        middle = (low + high) / 2
        enough = (change(middle) @ w)[:, None] >= lack[:, None]
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return change(high)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.1, 30.0])
def test_on_a_linear_model_the_change_is_the_smallest(plane, beta):
    model, x, y = plane
    found = counterfactual(model, x, y, sparsity=beta, smoothness=0.0, steps=600, levels=None)
    assert model(found).argmax(1).tolist() == [1] * 5
    change = (found - x).flatten(1)
    lack = -(x.flatten(1) @ model.w + model.b)
    best = smallest(model.w.detach(), x.flatten(1), lack.detach(), beta)

    def cost(d):
        return beta * d.abs().sum(1) + d.square().sum(1)

    assert bool((cost(change) >= cost(best) * (1 - 1e-9)).all())
    assert bool((cost(change) <= cost(best) * 1.01).all())
    if beta == 0:  # the nearest point of the plane
        nearest = lack[:, None] * model.w / model.w.square().sum()
        assert torch.allclose(change, nearest, atol=1e-3)


@pytest.mark.slow
def test_a_large_weight_of_l1_changes_the_one_most_telling_entry(plane):
    model, x, y = plane
    with torch.no_grad():
        model.b.copy_(-(x.flatten(1) @ model.w).min() - 0.3)  # so near that one entry is enough
    y = model(x).argmax(1)
    lack = -(x.flatten(1) @ model.w + model.b)
    change = (counterfactual(model, x, y, sparsity=100.0, smoothness=0.0, steps=600, levels=None) - x).flatten(1)
    best = model.w.abs().argmax()
    near = lack.abs() < 0.25 * model.w.abs().max()
    assert near.any()
    assert (change[near] != 0).sum(1).tolist() == [1] * int(near.sum())
    assert torch.allclose(change[near, best], (lack / model.w[best])[near], rtol=1e-2)


@pytest.mark.slow
def test_a_goal_is_reached_and_confidence_kept(network, images):
    model, x = network("relu"), images
    y = model(x).argmax(1).detach()
    goal = (y + 1) % 4
    found = counterfactual(model, x, y, goal=goal, binary_search_steps=5, steps=100)
    there = model(found).argmax(1) == goal
    assert bool((there == (found != x).flatten(1).any(1)).all()) and there.any()
    sure = counterfactual(model, x, y, confidence=0.5, binary_search_steps=5, steps=100)
    logits = model(sure)
    lead = logits.amax(1) - logits.gather(1, y[:, None])[:, 0]
    changed = (sure != x).flatten(1).any(1)
    assert changed.any() and bool((lead[changed] >= 0.5).all())


def test_what_answers_otherwise_already_and_what_cannot_change_come_back_as_they_were(plane):
    model, x, _ = plane
    mixed = torch.tensor([0, 1, 0, 1, 0])
    found = counterfactual(model, x, mixed)  # the model answers 0 to all of them
    assert torch.equal(found[1::2], x[1::2])
    assert bool((found[::2] != x[::2]).flatten(1).any(1).all())
    with torch.no_grad():
        model.w.mul_(1e-3)  # no image of the box is on the other side now
    assert torch.equal(counterfactual(model, x, torch.zeros(5, dtype=torch.int64)), x)


@pytest.mark.slow
def test_the_prototype_draws_the_features(network, images):
    model, x = network("relu"), images
    y = model(x).argmax(1).detach()
    known = rand(40, 3, 12, 12, seed=3)
    known[:, 0] = known[:, 0] ** torch.linspace(0.1, 5, 40)[:, None, None]
    answers = model(known).argmax(1)
    goal = torch.stack([answers[answers != k][0] for k in y])

    def features(z):
        return model.module[:4]((z - 0.5) / 0.25).mean((2, 3))

    def far(z):  # from the mean of the 3 nearest of the goal
        distances = []
        for i in range(len(x)):
            of_goal = features(known[answers == goal[i]])
            order = (of_goal - features(x[i : i + 1])).norm(dim=1).argsort()[:3]
            distances.append((features(z[i : i + 1])[0] - of_goal[order].mean(0)).square().sum())
        return torch.stack(distances)

    plain, guided = (
        counterfactual(model, x, y, goal=goal, known=known, k=3, theta=t, smoothness=0.0, steps=60) for t in (0.0, 50.0)
    )
    both = (model(plain).argmax(1) == goal) & (model(guided).argmax(1) == goal)
    assert both.any() and bool((far(guided) < far(plain))[both].all())


def test_smoothness_trades_size_for_total_variation(plane):
    model, x, y = plane

    def size(d):
        return d.square().sum((1, 2, 3))

    def variation(d):
        return sum(d.diff(dim=k).abs().sum((1, 2, 3)) for k in (2, 3))

    rough, smooth = (counterfactual(model, x, y, sparsity=0.0, smoothness=s, steps=100) - x for s in (0.0, 0.3))
    assert bool((variation(smooth) < 0.9 * variation(rough)).all())
    assert bool((size(smooth) > size(rough)).all())
    assert bool((size(smooth) + 0.3 * variation(smooth) < size(rough) + 0.3 * variation(rough)).all())


@pytest.fixture(scope="module")
def digits():
    model = uf.models.load("zoo:cluttered_digits")
    batch = uf.data.load("cluttered-digits:test", n=2, seed=0)[:2]
    return model, batch.x, model.predict(batch.x).argmax(1)


def cost(x, changed):
    """Return the cost of a change with the default weights of L1, L2 and TV."""
    d = (changed - x).double()
    steps = torch.cat([d.diff(dim=k).flatten(1).abs() for k in (2, 3)], 1)
    huber = torch.where(steps < 0.02, steps.square() / 0.04, steps - 0.01)
    return 0.1 * d.abs().sum((1, 2, 3)) + d.square().sum((1, 2, 3)) + 0.1 * huber.sum(1)


def test_the_change_costs_no_more_than_the_nearest_one(digits, network, images):
    """Even where the steps find nothing."""
    cases = (digits, (network("relu"), images, network("relu")(images).argmax(1).detach()))
    for model, x, y in cases:
        nearest = uf.attacks.ddn(model, x, y)
        found = counterfactual(model, x, y, steps=1, binary_search_steps=1, levels=None)
        assert torch.equal(model.predict(found).argmax(1) != y, model.predict(nearest).argmax(1) != y)
        assert bool((cost(x, found) <= cost(x, nearest) * (1 + 1e-5)).all())


@pytest.mark.parametrize("on_grid", [True, False])
def test_the_change_lasts_in_a_stored_image(digits, on_grid):
    """For images of 256 grey levels and for others; without rounding, it is often lost."""
    model, x, y = digits
    x = (x * 255).round() / 255 if on_grid else x + 0.001 * (1 - x)
    found = counterfactual(model, x, y, steps=5, binary_search_steps=2)
    stored = (found * 255).round() / 255
    for image in (found, stored):
        assert bool((model.predict(image).argmax(1) != y).all())
    levels = (found - x) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    if on_grid:
        assert torch.allclose(stored, found, atol=1e-6)
    goal = (y + 1) % 10
    aimed = counterfactual(model, x[:1], y[:1], goal=goal[:1], steps=5, binary_search_steps=2)
    assert model.predict((aimed * 255).round() / 255).argmax(1).tolist() == goal[:1].tolist()


def test_bad_input_is_named(network, images):
    model, x = network("relu"), images
    y = model(x).argmax(1).detach()
    with pytest.raises(InputError, match="goal .* label .* 6 of 6"):
        counterfactual(model, x, y, goal=y)
    with pytest.raises(InputError, match="0 < step_size < 0.5"):
        counterfactual(model, x, y, step_size=1.0)
    with pytest.raises(InputError, match="levels .* got 1"):
        counterfactual(model, x, y, levels=1)
    with pytest.raises(InputError, match="steps .* got 0"):
        counterfactual(model, x, y, steps=0)
    with pytest.raises(DataError, match=r"got \(2, 3, 9"):
        counterfactual(model, x, y, known=rand(2, 3, 9, 9))
    with pytest.raises(DataError, match="layer '3' .* 1 of 2"):
        counterfactual(model, x, y, known=torch.stack([x[0], torch.full_like(x[0], float("nan"))]))
    with pytest.raises(DataError, match="none of the 1 known"):
        counterfactual(model, x[:1], y[:1], known=x[:1])
    broken = uf.Classifier(nn.Sequential(model.module, nn.Threshold(0.0, float("nan"))))
    with pytest.raises(ModelError, match="logits are NaN"):
        counterfactual(broken, x, y)
    rooted = uf.Classifier(Rooted())
    with pytest.raises(ModelError, match="NaN for 6 of 6"):
        counterfactual(rooted, x, torch.zeros(6, dtype=torch.int64))


class Rooted(nn.Module):
    """Finite answers whose slope is not a number."""

    def forward(self, x):
        zero = (x - x).flatten(1).sum(1)
        return torch.stack([zero.abs().sqrt() * zero + 2, zero], 1)
