"""sigma-zero: flat boundaries, the paper's algorithm word for word, and adv_lib's results at the same budget."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor

from underfire import Classifier
from underfire.attacks import sigma_zero
from underfire.errors import InputError
from underfire.measures import perturbation


@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries_are_met_with_the_fewest_entries(two_boundaries, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = sigma_zero(model, x, y, steps=200, goal=classes)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all()) if goal is None else bool((reached == goal).all())
    # Untargeted it climbs to the class that leads, whose boundary need not be the nearest.
    expected = torch.stack([two_boundaries.distance("l0", k) for k in (1, 2)]).gather(0, reached[None] - 1)[0]
    assert torch.equal(perturbation.l0(x, x_adv).to(expected), expected)


def slow(model: Classifier, x: Tensor, y: int, steps: int) -> tuple[Tensor, int]:
    """The algorithm for one image, with PyTorch's own Adam, schedule and derivative of the smooth count."""
    delta = torch.zeros_like(x, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps, eta_min=0.1)
    best, fewest, tau = x, x.numel() + 1, 0.3
    for step in range(steps + 1):
        logits = model((x + delta)[None])[0]
        success, changed = int(logits.argmax()) != y, int((delta != 0).sum())
        if success and changed < fewest:
            best, fewest = (x + delta).detach(), changed
        if step == steps:
            break
        margin = logits[y] - torch.cat([logits[:y], logits[y + 1 :]]).max()
        loss = margin.clamp_min(0) + (delta**2 / (delta**2 + 1e-3)).mean()
        (g,) = torch.autograd.grad(loss, delta)
        delta.grad = g / g.abs().max() if bool(g.any()) else g
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)
            tau = min(max(tau + (0.01 if success else -0.01) * schedule.get_last_lr()[0], 0), 1)
            delta[delta.abs() < tau] = 0
    return best, fewest


def test_it_is_the_papers_algorithm(network, images):
    model, x = network("smooth", torch.float64), images[:2].double()
    y = model(x).argmax(1)
    x_adv = sigma_zero(model, x, y, steps=30)
    for i in range(len(x)):
        best, fewest = slow(model, x[i], int(y[i]), 30)
        assert fewest <= x[i].numel()
        assert torch.allclose(x_adv[i], best, atol=1e-9)


@pytest.mark.slow
def test_it_reaches_what_adv_lib_reaches(network, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", types.ModuleType("visdom"))
    pytest.importorskip("benchmarks.setting").declare_missing_operators()
    adv_lib = pytest.importorskip("adv_lib.attacks")
    model = network()
    y = model(images).argmax(1)
    mine = sigma_zero(model, images, y, steps=100)
    theirs = adv_lib.sigma_zero(model, images, y, num_steps=100)
    assert bool((model(mine).argmax(1) != y).all())
    assert perturbation.l0(images, mine).sum() <= 1.05 * perturbation.l0(images, theirs).sum()


def test_only_what_is_right_is_attacked(relu_model, images):
    y = relu_model(images).argmax(1)
    y[:4] = (y[:4] + 1) % 4
    with relu_model.counting() as count:
        x_adv = sigma_zero(relu_model, images, y, steps=10)
    assert torch.equal(x_adv[:4], images[:4])
    right = len(images) - 4
    assert (count.forwards, count.backwards) == (len(images) + right * 11, right * 10)


def test_bad_numbers_are_refused(relu_model, images):
    y = relu_model(images).argmax(1)
    for options in ({"step_size": 0.0}, {"sigma": 0.0}, {"rate": -1.0}, {"threshold": 1.5}):
        with pytest.raises(InputError, match="sigma_zero needs"):
            sigma_zero(relu_model, images, y, **options)
