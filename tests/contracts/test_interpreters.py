"""What every interpreter of the catalogue promises, and that a broken promise is found."""

import pytest
import torch

import underfire as uf
from tests.networks import build_network, rand
from underfire.data import Dataset
from underfire.testing import check_interpreter
from underfire.testing.interpreter import PROMISES, KnownImages

CARDS = {card.name: card for card in uf.cards("interpreter")}
# What makes a method short, or fit for images of 9 x 12 pixels; with it, the tests of a method are slow all the same.
SETTINGS: dict[str, dict] = {
    "counterfactual": {"steps": 60, "binary_search_steps": 3},
    "integrated_gradients": {"steps": 8},
    "leave_one_out": {},
    "lime": {"superpixels": "grid", "segments": 12, "samples": 60},  # quickshift finds nothing to cut in such noise
    "mask": {"steps": 4},
    "occlusion": {},
    "rise": {"samples": 40, "cells": 3, "shown": 0.5},
    "smooth_grad": {"samples": 8},
}
# What makes the fit of a trained one short.
FITS: dict[str, dict] = {"rts": {"selector_steps": 20, "steps": 3, "batch_size": 8}}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SETTINGS | FITS)) for n in CARDS])
def test_every_promise_is_kept(name, promise):
    check_interpreter(CARDS[name], options=SETTINGS.get(name), fit_options=FITS.get(name), promises=[promise])


def gradient(model, x, y):
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        (g,) = torch.autograd.grad(
            model(point).gather(1, y[:, None]).sum(), point, create_graph=x.requires_grad and torch.is_grad_enabled()
        )
    return g.abs().amax(1, keepdim=True)


def loses_a_row(model, x, y):
    return gradient(model, x, y)[:-1]


def is_double_the_size(model, x, y):
    return gradient(model, x, y).repeat(1, 1, 2, 2)


def changes_the_type(model, x, y):
    return gradient(model, x, y).float()


def looks_at_the_batch(model, x, y):
    m = gradient(model, x, y)
    return m - m.mean(0)


def forgets_the_graph(model, x, y):
    return gradient(model, x, y).detach()


def leaves_evaluation_mode(model, x, y):
    model.eval()
    return gradient(model, x, y)


def draws_from_the_global_state(model, x, y):
    return gradient(model, x, y) + torch.rand(1, 1, 1, 1, generator=torch.default_generator, dtype=x.dtype)


def takes_any_class(model, x, y):
    return gradient(model, x, y.long() % 4)


@pytest.mark.parametrize(
    ("interpreter", "promise"),
    [
        (loses_a_row, "map_shape_and_dtype"),
        (is_double_the_size, "map_shape_and_dtype"),
        (changes_the_type, "map_shape_and_dtype"),
        (looks_at_the_batch, "batch_equals_singles"),
        (forgets_the_graph, "differentiable_as_the_card_says"),
        (leaves_evaluation_mode, "model_left_as_found"),
        (draws_from_the_global_state, "model_left_as_found"),
        (draws_from_the_global_state, "deterministic"),
        (takes_any_class, "bad_input"),
    ],
)
def test_a_broken_promise_is_found(interpreter, promise):
    with pytest.raises(AssertionError, match=f"{interpreter.__name__} breaks .*{promise}"):
        check_interpreter(interpreter, promises=[promise])


def prepared(name, model):
    method = CARDS[name].with_options(**SETTINGS.get(name, {}))
    if CARDS[name].fitted:
        method.fit(model, Dataset("known images", KnownImages()), **FITS.get(name, {}))
    return method


def giving(kind):
    return pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.facts.gives == kind])


@pytest.fixture
def model():
    return build_network("relu", torch.float64)


@pytest.fixture
def x():
    return rand(4, 3, 9, 12, dtype=torch.float64)


@pytest.mark.slow
@giving("images")
def test_images_stay_in_the_box_and_change_the_answer(model, x, name):
    y = model(x).argmax(1).detach()
    change = prepared(name, model)
    seen = change(model, x, y)
    assert seen.shape == x.shape and seen.dtype == x.dtype and not seen.requires_grad
    assert bool(((seen >= 0) & (seen <= 1)).all())
    changed = (seen != x).flatten(1).any(1)
    assert torch.equal(model(seen).argmax(1) != y, changed)  # an image that comes back as it was marks a failure
    assert changed.any()
    singles = torch.cat([change(model, x[i : i + 1], y[i : i + 1]) for i in range(4)])
    assert torch.allclose(seen, singles, atol=1e-8)
    with torch.no_grad():
        assert torch.equal(change(model, x, y), seen)  # works where gradients are off


@giving("examples")
def test_examples_are_known_images_nearest_first(model, x, name):
    y = torch.tensor([0, 1, 2, 3])
    show = prepared(name, model)
    seen = show(model, x, y)
    k = seen.index.shape[1]
    assert len(seen) == 4 and seen.distance.shape == seen.y.shape == (4, k) and seen.x.shape == (4, k, 3, 9, 12)
    assert [len(row) for row in (*seen.ids, *seen.notes)] == [k] * 8
    for row, distances in zip(seen.notes, seen.distance, strict=True):
        for note in set(row):
            of_it = distances[[i for i, other in enumerate(row) if other == note]]
            assert torch.equal(of_it, of_it.sort().values)
    there = seen.index >= 0
    known = KnownImages().read(seen.index[there].tolist())
    assert there.any() and torch.equal(seen.x[there], known.x) and torch.equal(seen.y[there], known.y)
    assert known.ids == tuple(i for ids in seen.ids for i in ids if i)
    assert bool((seen.x[~there] == 0).all()) and bool(seen.distance[~there].isinf().all())
    for i in range(4):
        single = show(model, x[i : i + 1], y[i : i + 1])
        assert torch.equal(single.index[0], seen.index[i]) and single.notes[0] == seen.notes[i]
        assert torch.allclose(single.distance[0], seen.distance[i], atol=1e-10)


@giving("rules")
def test_rules_are_sentences_for_every_image(model, x, name):
    y = torch.tensor([0, 1, 2, 3])
    explain = prepared(name, model)
    rules = explain(model, x, y)
    assert len(rules) == 4 and all(rule and all(isinstance(line, str) and line for line in rule) for rule in rules)
    assert [explain(model, x[i : i + 1], y[i : i + 1])[0] for i in range(4)] == rules
    assert 0 <= explain.fidelity.low <= explain.fidelity.value <= explain.fidelity.high <= 1
