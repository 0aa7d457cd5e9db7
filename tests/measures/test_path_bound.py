"""Proposition 1 of ADV²: a complete map changes at least as much as the logit that it explains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks import rand
from underfire.attacks.adv2 import adv2
from underfire.attacks.fgsm import fgsm
from underfire.attacks.pgd import pgd
from underfire.catalog import cards, find
from underfire.errors import InputError
from underfire.interpreters.integrated_gradients import integrated_gradients
from underfire.measures.path_bound import map_change, map_change_bound


def network() -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Softplus(), nn.Flatten(), nn.Linear(128, 4)
    ).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.0, 0.25, generator=draw)
    return made


ATTACKS = {
    "fgsm": lambda model, x, y: fgsm(model, x, y, eps=0.1),
    "pgd": lambda model, x, y: pgd(model, x, y, eps=0.1, steps=10),
    "adv2": lambda model, x, y: adv2(
        model, x, y, interpreter=find("interpreter", "integrated_gradients").with_options(steps=8), eps=0.1, steps=10
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_complete_map_changes_at_least_as_much_as_its_logit(attack):
    model, x = network(), rand(8, 3, 8, 8).double()
    pred = model(x).argmax(1)
    x_adv = ATTACKS[attack](model, x, pred).detach()
    reached = model(x_adv).argmax(1)
    assert (x_adv != x).flatten(1).any(1).all()
    m, n = (integrated_gradients(model, t, c, steps=64).detach() for t, c in ((x, pred), (x_adv, reached)))
    # the proposition: both maps explain one class, and share one baseline
    for y in (pred, reached):
        a, b = (integrated_gradients(model, t, y, steps=64).detach() for t in (x, x_adv))
        gain = (model(x_adv) - model(x)).gather(1, y[:, None]).squeeze(1).abs()
        assert (gain <= (b - a).abs().sum((1, 2, 3)) + 5e-3).all()
    # the seed's surrogate: the map of x* with the clean image as its baseline
    surrogate = integrated_gradients(model, x_adv, reached, baseline=x, steps=64).detach()
    gain = (model(x_adv) - model(x)).gather(1, reached[:, None]).squeeze(1)
    torch.testing.assert_close(surrogate.sum((1, 2, 3)), gain.detach(), atol=5e-3, rtol=0)
    assert (gain <= surrogate.abs().sum((1, 2, 3)) + 5e-3).all()
    # the maps of an audit, each for the predicted class, whose baselines have logits of their own
    assert (map_change_bound(model, x, x_adv, m) <= map_change(m, n) + 5e-3).all()


@pytest.mark.parametrize("card", [card for card in cards("interpreter") if card.facts.complete], ids=lambda c: c.name)
def test_a_map_that_is_called_complete_sums_to_the_change_of_the_logit(card):
    model, x = network(), rand(4, 3, 8, 8).double()
    y = model(x).argmax(1)
    m, gain = card.function(model, x, y).detach(), model(x) - model(torch.zeros_like(x))
    torch.testing.assert_close(m.sum((1, 2, 3)), gain.detach().gather(1, y[:, None])[:, 0], atol=0.02, rtol=0)


@pytest.mark.parametrize("baseline", ["black", "mean", "blur", 1.0])
def test_the_bound_is_the_change_of_the_sum(baseline):
    model, x = network(), rand(8, 3, 8, 8).double()
    x_adv = (x + 0.2 * rand(8, 3, 8, 8, seed=5)).clamp(0, 1)
    name = {1.0: "white"}.get(baseline, baseline)
    m, n = (integrated_gradients(model, t, model(t).argmax(1), baseline=name, steps=64).detach() for t in (x, x_adv))
    known = (n.sum((1, 2, 3)) - m.sum((1, 2, 3))).abs() / m.abs().sum((1, 2, 3))
    found = map_change_bound(model, x, x_adv, m, baseline=baseline)
    torch.testing.assert_close(found, known, atol=5e-3, rtol=0)
    assert (found > 1e-3).any()


def test_a_linear_model_reaches_the_bound():
    """All gradients positive and both images ordered: no term of the sum cancels another."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(16), -torch.ones(16)]))
    x = 0.5 * rand(3, 1, 4, 4).double()
    x_adv = x + 0.25
    y = torch.zeros(3, dtype=torch.int64)
    m, n = (integrated_gradients(model, t, y, steps=2).detach() for t in (x, x_adv))
    torch.testing.assert_close(map_change_bound(model, x, x_adv, m), map_change(m, n))
    torch.testing.assert_close(map_change(m, n), 4.0 / x.sum((1, 2, 3)))


def test_no_change_needs_none_and_a_map_of_zeros_has_no_bound():
    model, x = network(), rand(2, 3, 8, 8).double()
    m = rand(2, 1, 8, 8).double()
    assert map_change_bound(model, x, x, m).tolist() == [0, 0] == map_change(m, m).tolist()
    assert map_change_bound(model, x, x, 0 * m).isnan().all() and map_change(0 * m, m).isnan().all()
    with pytest.raises(InputError, match="fit"):
        map_change_bound(model, x, x[:1], m)
