"""The attack by a substitute: it sees labels only, asks no more than it may, and what it crafts transfers."""

from __future__ import annotations

import pytest
import torch

from tests.networks import rand, seeded
from underfire.attacks import fgsm, substitute
from underfire.attacks.substitute.surrogates import Labelled
from underfire.errors import DataError, OracleError, Unsupported
from underfire.model import Oracle

SHAPE = (1, 5, 5)


def linear(classes=3):
    weight = torch.randn(25, classes, generator=seeded(5))
    weight -= weight.mean(0)  # so that brightness decides nothing
    return lambda x: (x.flatten(1) @ weight).argmax(1), weight


def images(count, seed=0):
    return torch.rand(count, *SHAPE, generator=seeded(seed))


@pytest.mark.slow
def test_transfer_to_a_linear_oracle_is_nearly_as_good_as_its_own_gradient():
    answer, weight = linear()
    oracle = Oracle(answer, 3)
    x = images(60)
    y = oracle.label(x)
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 3, bias=False))
    own[1].weight.data = weight.T
    fooled = {}
    for architecture in ("lr", "dnn"):
        x_adv = substitute(oracle, x, y, eps=0.2, architecture=architecture, queries=15, generator=seeded())
        fooled[architecture] = (answer(x_adv) != y).float().mean()
    white_box = (answer(fgsm(own, x, y, eps=0.2)) != y).float().mean()
    random = x + 0.2 * (torch.rand(x.shape, generator=seeded()) - 0.5).sign()
    assert fooled["lr"] > white_box - 0.1
    assert fooled["dnn"] > white_box - 0.25
    assert fooled["dnn"] > (answer(random.clamp(0, 1)) != y).float().mean() + 0.3


@pytest.mark.parametrize("queries", [3, torch.tensor([2, 0, 5, 1]) + 1])
def test_the_pooled_budget_is_used_to_the_last_query(queries):
    oracle = Oracle(linear()[0], 3)
    x = images(4)
    y = oracle.label(x)
    oracle.queries = 0
    substitute(oracle, x, y, queries=queries, epochs=1, generator=seeded())
    assert oracle.queries == 12


def test_only_the_largest_logit_counts_and_the_model_is_shown_no_result(network):
    model, x = network(channels=1), images(10)
    y = model(x).argmax(1)
    with model.counting() as count:
        first = substitute(model, x, y, queries=4, epochs=2, generator=seeded())
    assert (count.forwards, count.backwards) == (40, 0)
    blind = Oracle(lambda x: model(x).argmax(1), 4)
    assert torch.equal(first, substitute(blind, x, y, queries=4, epochs=2, generator=seeded()))
    assert blind.queries == 40


def test_seeds_and_methods_of_ones_own():
    answer, _ = linear()
    seen = []

    def watched(x):
        seen.append(x)
        return answer(x)

    oracle, x, seeds = Oracle(watched, 3), images(5), images(8, seed=3)
    y = answer(x)
    substitute(oracle, x, y, seeds=seeds, steps=2, epochs=1, generator=seeded())
    assert torch.equal(seen[0], seeds)
    kept = []

    def method(f, x, y, *, goal, eps, generator):
        kept.append(f)
        return (x + eps).clamp(max=1)

    x_adv = substitute(oracle, x, y, eps=0.1, method=method, steps=1, epochs=1, generator=seeded())
    assert torch.equal(x_adv, (x + 0.1).clamp(max=1))
    by_hand = substitute(oracle, x, y, eps=0.1, method=fgsm, steps=1, epochs=1, generator=seeded())
    assert torch.equal(by_hand, fgsm(kept[0], x, y, eps=0.1))
    assert substitute(oracle, x, y, method="pgd", steps=1, epochs=1, generator=seeded()).shape == x.shape


def test_what_was_paid_for_is_kept_and_bad_input_is_refused():
    answer, _ = linear()
    calls = []

    def flaky(x):
        calls.append(len(x))
        if len(calls) == 3:
            raise ConnectionError("quota spent")
        return answer(x)

    x = images(5)
    y = answer(x)
    with pytest.raises(OracleError, match="after 10 queries: quota spent") as caught:
        substitute(Oracle(flaky, 3), x, y, epochs=1, generator=seeded())
    assert isinstance(caught.value.found, Labelled)
    assert torch.equal(caught.value.found.y, answer(caught.value.found.x))
    oracle = Oracle(answer, 3)
    with pytest.raises(Unsupported, match="'fgms'.* 'fgsm'"):
        substitute(oracle, x, y, method="fgms")
    with pytest.raises(DataError, match=r"seeds .*\(1, 5, 5\)"):
        substitute(oracle, x, y, seeds=rand(2, 1, 4, 4))
