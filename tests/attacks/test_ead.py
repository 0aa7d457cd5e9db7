"""EAD: near the exact point on flat boundaries, the paper's iterations word for word, and what the two rules keep."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from underfire import Classifier
from underfire.ascent.threats import ball
from underfire.attacks import ead
from underfire.errors import InputError, Unsupported

pytestmark = pytest.mark.slow  # one of the twenty heaviest files

size = ball("l1", 1).size


@pytest.mark.parametrize("goal", [None, 1, 2])
def test_flat_boundaries_are_met(two_boundaries, goal):
    model, x, y = two_boundaries.model, two_boundaries.x, two_boundaries.y
    classes = None if goal is None else torch.full_like(y, goal)
    x_adv = ead(model, x, y, goal=classes, rule="L1", beta=0.02, steps=150, binary_search_steps=12, c=0.1)
    reached = model(x_adv).argmax(1)
    assert bool((reached != y).all()) if goal is None else bool((reached == goal).all())
    expected = torch.stack([two_boundaries.distance("l1", k) for k in (1, 2)]).gather(0, reached[None] - 1)[0]
    ratio = size(x, x_adv) / expected
    assert ratio.min() > 0.999
    assert ratio.max() < 1.25


def slow(model: Classifier, x: Tensor, y: int, c: float, beta: float, steps: int, fast: bool, rule: str) -> Tensor:
    """Algorithm 1 of the paper for one image and one c (without `fast`, ISTA), entry by entry."""
    z, ahead, best, least = x, x, x, math.inf
    for k in range(steps):
        leaf = ahead.clone().requires_grad_(True)
        logits = model(leaf[None])[0]
        f = (logits[y] - torch.cat([logits[:y], logits[y + 1 :]]).max()).clamp_min(0)
        (c * f + (leaf - x).square().sum()).backward()
        moved = ahead - 0.01 * math.sqrt(1 - k / steps) * leaf.grad
        last, z = z, x.clone()
        z = torch.where(moved - x > beta, (moved - beta).clamp_max(1), z)
        z = torch.where(moved - x < -beta, (moved + beta).clamp_min(0), z)
        ahead = z + k / (k + 3) * (z - last) if fast else z
        d = z - x
        score = float(d.abs().sum()) if rule == "L1" else float(beta * d.abs().sum() + d.square().sum())
        if int(model(z[None])[0].argmax()) != y and score < least:
            best, least = z, score
    return best


@pytest.mark.parametrize("rule", ["EN", "L1"])
@pytest.mark.parametrize("fast", [True, False])
def test_it_is_the_papers_iterations(network, images, fast, rule):
    model, x = network("smooth", torch.float64), images[:3].double()
    y = model(x).argmax(1)
    x_adv = ead(model, x, y, c=20.0, steps=40, binary_search_steps=1, fast=fast, rule=rule, abort_early=False)
    assert (size(x, x_adv) > 0).all()
    for i in range(len(x)):
        assert torch.allclose(x_adv[i], slow(model, x[i], int(y[i]), 20.0, 1e-3, 40, fast, rule), atol=1e-9)


@pytest.mark.slow
def test_each_rule_keeps_what_it_says(relu_model, images):
    y = relu_model(images).argmax(1)
    found = {rule: ead(relu_model, images, y, beta=0.01, steps=60, c=0.1, rule=rule) for rule in ("EN", "L1")}
    assert all(bool((relu_model(x_adv).argmax(1) != y).all()) for x_adv in found.values())

    def elastic(x_adv: Tensor) -> Tensor:
        return 0.01 * size(images, x_adv) + (x_adv - images).square().flatten(1).sum(1)

    assert (size(images, found["L1"]) <= size(images, found["EN"]) + 1e-6).all()
    assert (elastic(found["EN"]) <= elastic(found["L1"]) + 1e-6).all()


def test_c_is_searched_for_every_sample(network, images):
    """Far too small a c grows tenfold until it succeeds; one far too large shrinks, and the result with it."""
    model = network()
    y = model(images).argmax(1)
    assert bool((model(ead(model, images, y, c=1e-6, steps=40, binary_search_steps=1)).argmax(1) == y).all())
    assert bool((model(ead(model, images, y, c=1e-6, steps=40, binary_search_steps=9)).argmax(1) != y).all())
    large = [ead(model, images, y, c=1e3, steps=40, binary_search_steps=n) for n in (1, 9)]
    assert size(images, large[1]).mean() < 0.9 * size(images, large[0]).mean()


def test_confidence_is_a_lead_in_logits(relu_model, images):
    y = relu_model(images).argmax(1)
    logits = relu_model(ead(relu_model, images, y, c=1.0, steps=60, confidence=0.2))
    lead = logits.scatter(1, y[:, None], -math.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]
    assert (lead >= 0.2 - 1e-5).all()


def test_what_stopped_improving_costs_nothing_more(relu_model, images):
    y = relu_model(images).argmax(1)
    y[:3] = (y[:3] + 1) % 4  # wrong from the start
    passes = {}
    for abort in (True, False):
        with relu_model.counting() as count:
            x_adv = ead(relu_model, images, y, c=1e-4, steps=50, binary_search_steps=1, abort_early=abort)
        assert torch.equal(x_adv[:3], images[:3])
        passes[abort] = count.forwards, count.backwards
    assert passes[False] == (6 + 3 * 2 * 50, 3 * 50)
    assert passes[True][1] < 3 * 50 / 2


def test_an_early_end_costs_no_success(relu_model, images):
    """A run that succeeds goes on to its last step; a run that fails and stalls would not have succeeded."""
    y = relu_model(images).argmax(1)
    found, passes = {}, {}
    for abort in (True, False):
        with relu_model.counting() as count:
            x_adv = ead(relu_model, images, y, c=1e-3, steps=60, binary_search_steps=6, rule="L1", abort_early=abort)
        found[abort], passes[abort] = size(images, x_adv), count.backwards
    assert bool((found[True] > 0).all()) and torch.allclose(found[True], found[False], rtol=0.02)
    assert passes[True] < passes[False]


def test_bad_options_are_refused(relu_model, images):
    y = relu_model(images).argmax(1)
    with pytest.raises(Unsupported, match="choices: EN, L1"):
        ead(relu_model, images, y, rule="L2")
    for options in ({"step_size": 0.0}, {"c": 0.0}, {"beta": -1.0}, {"confidence": -1.0}):
        with pytest.raises(InputError, match="step_size > 0"):
            ead(relu_model, images, y, **options)
    with pytest.raises(InputError, match="binary_search_steps must be at least"):
        ead(relu_model, images, y, binary_search_steps=0)
