"""Substitutes: the paper's formulas, queries to the last one, and agreement with an oracle that can be learned."""

from __future__ import annotations

import pytest
import torch

from tests.networks import rand, seeded
from underfire.attacks.substitute.surrogates import Labelled, built, drawn, train_substitute
from underfire.errors import DataError, InputError, ModelError, OracleError, Unsupported
from underfire.model import Oracle

SHAPE = (1, 4, 5)


def images(count, seed=0):
    return torch.rand(count, *SHAPE, generator=seeded(seed))


def linear(classes=3):
    """An oracle that a linear model can learn, and all it was shown."""
    weight = torch.randn(20, classes, generator=seeded(5))
    shown = []

    def answer(x):
        shown.append(x.clone())
        return ((x.flatten(1).to(weight) - 0.5) @ weight).argmax(1)

    return Oracle(answer, classes), shown


def test_the_reservoir_is_algorithm_r_word_for_word():
    for count, size in ((50, 7), (8, 7), (2000, 400)):
        kept = drawn(count, size, seeded())
        place = (torch.rand(count - size, generator=seeded()) * torch.arange(size + 1, count + 1)).long()
        reservoir = list(range(size))
        for i in range(size, count):
            r = int(place[i - size])
            assert 0 <= r <= i
            if r < size:
                reservoir[r] = i
        assert kept.tolist() == reservoir
    assert drawn(5, 7).tolist() == [0, 1, 2, 3, 4]
    assert drawn(7, 7).tolist() == list(range(7))


def test_the_reservoir_is_uniform():
    counts = torch.zeros(40)
    for seed in range(2000):
        counts[drawn(40, 10, seeded(seed))] += 1
    # A count is binomial (2000, 1/4): 500 with a deviation of 19.4.
    assert counts.sum() == 20_000
    assert (counts - 500).abs().max() < 5 * 19.4


@pytest.mark.parametrize(("steps", "doublings", "kappa"), [(1, 3, 400), (5, 2, 11), (4, 0, 6), (3, 1, 400)])
def test_queries_are_the_papers_count(steps, doublings, kappa):
    oracle, shown = linear()
    options = {"steps": steps, "doublings": doublings, "reservoir": kappa, "epochs": 1, "architecture": "lr"}
    train_substitute(oracle, images(10), generator=seeded(), **options)
    wanted, known = [10], 10
    for step in range(steps):
        wanted.append(known if step < doublings else min(kappa, known))
        known += wanted[-1]
    assert [len(x) for x in shown] == wanted
    if kappa <= 10 * 2**doublings:
        assert oracle.queries == 10 * 2 ** min(doublings, steps) + kappa * max(0, steps - doublings)


@pytest.mark.parametrize("queries", [1, 9, 10, 11, 33, 80])
def test_queries_are_never_exceeded_by_one_and_all_used(queries):
    oracle, _ = linear()
    train_substitute(oracle, images(10), queries=queries, steps=3, epochs=1, architecture="lr", generator=seeded())
    assert oracle.queries == queries


def test_new_images_follow_the_sign_of_the_jacobian_and_the_period():
    """A linear substitute that is hardly trained has the gradient that it began with."""
    oracle, shown = linear()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 3))
    with torch.no_grad():
        net[1].weight.copy_(100 * torch.randn(3, 20, generator=seeded(2)))
    x = images(6)
    train_substitute(oracle, x, architecture=lambda: net, steps=5, step_size=0.07, period=2, doublings=9, epochs=1)
    sign = net[1].weight.detach().sign()
    known = x
    for step, new in enumerate(shown[1:]):
        moved = sign[oracle.label(known)].view_as(known)
        assert torch.allclose(new, (known + 0.07 * (-1) ** (step // 2) * moved).clamp(0, 1), atol=1e-6)
        known = torch.cat((known, new))


@pytest.mark.slow
def test_a_linear_oracle_is_recovered():
    oracle, _ = linear()
    f = train_substitute(oracle, images(60), architecture="lr", steps=6, epochs=20, generator=seeded())
    x = images(500, seed=9)
    agreement = [(f.predict(x).argmax(1) == oracle.label(x)).float().mean()]
    unaided = train_substitute(oracle, images(60), architecture="lr", queries=60, epochs=140, generator=seeded())
    agreement.append((unaided.predict(x).argmax(1) == oracle.label(x)).float().mean())
    assert agreement[0] > 0.8
    assert agreement[0] > agreement[1]  # what the seeds alone teach, in as many epochs


def test_a_model_and_a_callable_are_oracles_too(network):
    model = network(channels=1)
    x = images(8)
    first = train_substitute(model, x, steps=2, epochs=1, generator=seeded())
    called = train_substitute(lambda x: model(x).argmax(1), x, classes=4, steps=2, epochs=1, generator=seeded())
    assert torch.equal(first.predict(x), called.predict(x))
    assert not first.training and next(first.parameters()).requires_grad
    doubled = train_substitute(model, x.double(), steps=1, epochs=1, generator=seeded())
    assert next(doubled.parameters()).dtype == torch.float64


def test_first_weights_come_from_the_generator_alone():
    state = torch.get_rng_state()
    nets = [built(name, torch.Size(SHAPE), 3, seeded()) for name in ("dnn", "dnn", "lr")]
    assert torch.equal(torch.get_rng_state(), state)
    same = zip(nets[0].parameters(), nets[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert nets[0](images(2)).shape == nets[2](images(2)).shape == (2, 3)
    for shape in ((3, 1, 1), (1, 28, 28), (2, 3, 17)):
        assert built("dnn", torch.Size(shape), 5, seeded())(rand(2, *shape)).shape == (2, 5)


def test_what_was_paid_for_is_kept_when_the_oracle_fails():
    calls = 0

    def answer(x):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionError("line is dead")
        return torch.zeros(len(x), dtype=torch.int64)

    with pytest.raises(OracleError, match="20 queries: line is dead") as caught:
        train_substitute(answer, images(10), classes=2, epochs=1, generator=seeded())
    found = caught.value.found
    assert isinstance(found, Labelled)
    assert len(found.x) == len(found.y) == 20
    assert found.substitute.predict(found.x).shape == (20, 2)

    def dead(x):
        raise TimeoutError

    with pytest.raises(OracleError, match="after 0 queries: TimeoutError") as caught:
        train_substitute(dead, images(10), classes=2)
    assert caught.value.found.substitute is None and len(caught.value.found.x) == 0


def test_wrong_answers_and_wrong_numbers_are_one_clear_error():
    x = images(4)
    for wrong in (lambda x: torch.zeros(len(x), 2), lambda x: torch.zeros(1)):
        with pytest.raises(ModelError, match="one class per image"):
            train_substitute(wrong, x, classes=2)
    with pytest.raises(ModelError, match="from 0 to 1"):
        train_substitute(lambda x: torch.full((len(x),), 2), x, classes=2)
    oracle, _ = linear()
    cases = [
        (InputError, "classes must be given", lambda x: x, {}),
        (InputError, "steps must be at least 1", oracle, {"steps": 0}),
        (InputError, "queries must be whole numbers of at least 1", oracle, {"queries": 0}),
        (InputError, "step_size in \\(0, 1\\], got 3 and 0", oracle, {"step_size": 0}),
        (InputError, "epochs must be at least 1", oracle, {"epochs": 0}),
        (Unsupported, "unknown architecture 'cnn'", oracle, {"architecture": "cnn"}),
    ]
    for error, words, asked, options in cases:
        with pytest.raises(error, match=words):
            train_substitute(asked, x, **options)
    narrow = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 2))
    with pytest.raises(ModelError, match="2 outputs.* 3 classes"):
        train_substitute(oracle, x, architecture=lambda: narrow)
    with pytest.raises(DataError, match="at least one seed"):
        train_substitute(oracle, x[:0])
