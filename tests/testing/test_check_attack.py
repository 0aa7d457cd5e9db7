"""`check_attack` sees what is wrong with an attack, and names the promise."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import underfire as uf
from underfire.catalog import AttackFacts, Card
from underfire.domains import ADDITIVE
from underfire.errors import Unsupported
from underfire.testing import check_attack
from underfire.testing.attack import PROMISES


def good(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    if goal is not None:
        raise Unsupported("this attack has no goal")
    return uf.attacks.fgsm(model, x, y, eps=eps)


def too_far(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return good(model, x, y, eps=2 * eps)


def unchecked(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return x.clone()


def global_noise(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return (x + eps * (torch.rand_like(x) - 0.5)).clamp(0, 1)


def leaves_evaluation_mode(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    model.eval()
    return good(model, x, y, eps=eps)


def vanishing(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    return (x + 0.1 * g.sign()).clamp(0, 1)


def mixes_samples(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return (x + 0.01 * x.mean(0, keepdim=True)).clamp(0, 1)


def promotes(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return x + torch.as_tensor(eps).reshape(-1, 1, 1, 1) * 0


def repairs(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return uf.attacks.fgsm(model, x, (y + 1) % 4, goal=y, eps=0.5)


def fills_an_empty_batch(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return x if len(x) else x.new_zeros(1, *x.shape[1:])


def depends_on_the_mode(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    return x * (1.0 if torch.is_grad_enabled() else 0.5)


def hands_on_its_images(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    model(x)
    return x.clone()


def card(function, **facts):
    return Card("attack", function.__name__, function, "nobody", AttackFacts(**facts))


BROKEN = {
    "shape_box_and_size": (too_far, {}),
    "every_domain": (unchecked, {}),
    "deterministic": (global_noise, {}),
    "model_left_as_found": (leaves_evaluation_mode, {}),
    "goal_works_or_raises": (unchecked, {"goals": ("untargeted", "targeted")}),
    "prediction_kept": (too_far, {"quadrant": "prediction kept, map changed"}),
    "saturated_model": (vanishing, {}),
    "batch_equals_singles": (mixes_samples, {"random": False}),
    "any_precision": (promotes, {}),
    "misclassified_stays": (repairs, {}),
    "no_success_where_none_is": (too_far, {"minimal": True}),
    "empty_batch": (fills_an_empty_batch, {}),
    "bad_input": (unchecked, {}),
    "result_without_graph": (unchecked, {}),
    "same_in_every_gradient_mode": (depends_on_the_mode, {}),
    "same_in_every_default_dtype": (promotes, {}),
    "not_finite_is_no_success": (too_far, {"minimal": True}),
    "model_without_gradient": (unchecked, {}),
    "network_that_writes_into_its_input": (hands_on_its_images, {}),
    "any_answer": (unchecked, {}),
}


def test_an_attack_that_keeps_its_promises_passes():
    check_attack(card(good, random=False, domains=ADDITIVE))


@pytest.mark.parametrize("promise", PROMISES)
def test_a_broken_promise_is_seen(promise):
    function, facts = BROKEN[promise]
    with pytest.raises(AssertionError, match=f"{function.__name__} breaks the promise '{promise}'"):
        check_attack(card(function, **facts), promises=[promise])


def crashes(model, x, y, *, goal=None, eps=8 / 255, generator=None):
    raise ZeroDivisionError("by nothing")


def test_an_error_of_the_attack_names_the_promise_and_the_error():
    with pytest.raises(AssertionError, match="'empty_batch': ZeroDivisionError: by nothing"):
        check_attack(card(crashes), promises=["empty_batch"])
    with pytest.raises(AssertionError, match="must raise DataError, got ZeroDivisionError"):
        check_attack(card(crashes), promises=["bad_input"])
