"""L-BFGS: the same minima as scipy's solver of the same problem, and the smallest weight that fools."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from underfire.ascent.nearest import Nearest
from underfire.ascent.step import Targets
from underfire.ascent.threats import ball
from underfire.attacks import lbfgs
from underfire.attacks.lbfgs import minimise
from underfire.domains import IMAGES
from underfire.errors import InputError


def test_the_minima_are_those_of_scipy(network, images):
    model, x = network("smooth", torch.float64), images.double()[:3]
    y = model(x).argmax(1)
    goal, c = (y + 1) % 4, torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)  # the last one meets the box

    def total(z):
        loss = F.cross_entropy(model(z), goal, reduction="none")
        return (z - x).square().flatten(1).sum(1) + c * loss

    nearest = Nearest(x, "l2", domain=IMAGES)
    found, reached = minimise(model, nearest, Targets(y, goal, torch.arange(3)), goal, c, 300, 1e-10)
    assert torch.equal(reached, model(found).argmax(1) == goal)
    assert bool(((found == 0) | (found == 1)).any())
    for i in range(3):

        def one(z, i=i):
            point = x.clone()
            point[i] = torch.as_tensor(z).view_as(x[i])
            point.requires_grad_()
            value = total(point)[i]
            return value.item(), torch.autograd.grad(value, point)[0][i].flatten().numpy()

        theirs = minimize(one, x[i].flatten().numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * x[i].numel())
        assert float(total(found)[i].detach()) <= theirs.fun * (1 + 1e-4)


@pytest.mark.slow
def test_two_classes_are_met_exactly(two_boundaries):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    with torch.no_grad():
        model.module[1].bias[2] -= 100
    x_adv = lbfgs(model, x, y, binary_search_steps=14)
    assert bool((model(x_adv).argmax(1) == 1).all())
    ratio = ball("l2", 1).size(x, x_adv) / two_boundaries.distance("l2")
    assert float(ratio.max()) <= 1.02


@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries(two_boundaries, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = lbfgs(model, x, y, goal=classes, binary_search_steps=8)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all() if goal is None else (reached == goal).all())
    ratio = ball("l2", 1).size(x, x_adv) / two_boundaries.distance("l2", goal)
    assert float(ratio.median()) <= 1.25


@pytest.mark.slow
def test_more_candidates_are_never_farther(two_boundaries):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    one, both = (ball("l2", 1).size(x, lbfgs(model, x, y, candidates=k, binary_search_steps=6)) for k in (1, 2))
    assert (both <= one).all()
    assert (both < 0.99 * one).any()  # the class with the higher logit is not always the nearest


def test_what_has_converged_leaves_the_batch(two_boundaries):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    with model.counting() as count:
        lbfgs(model, x, y, binary_search_steps=2, candidates=1, steps=100)
    assert count.backwards < 6 * 2 * 100 / 2


def test_bad_numbers(relu_model, images):
    y = relu_model(images).argmax(1)
    for wrong in ({"c": 0.0}, {"tolerance": -1.0}, {"candidates": 0}, {"binary_search_steps": 0}):
        with pytest.raises(InputError):
            lbfgs(relu_model, images, y, **wrong)
