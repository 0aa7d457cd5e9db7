"""What every interpreter of the catalogue promises."""

import pytest
import torch

import underfire as uf
from tests.networks import rand, randn
from underfire.data import Dataset
from underfire.errors import DataError, NotFitted

CARDS = {card.name: card for card in uf.cards("interpreter")}
MAPS = {name: card for name, card in CARDS.items() if card.facts.gives == "map"}
every_interpreter = pytest.mark.parametrize("name", CARDS)
every_map = pytest.mark.parametrize("name", MAPS)

# What makes a method short, or fit for images of 9 x 12 pixels.
SETTINGS: dict[str, dict] = {
    "lime": {"superpixels": "grid", "segments": 12, "samples": 60},  # quickshift finds nothing to cut in such noise
    "mask": {"steps": 4},
    "rise": {"samples": 40, "cells": 3, "shown": 0.5},
}
# What makes the fit of a trained one short.
FITS: dict[str, dict] = {"rts": {"selector_steps": 20, "steps": 3, "batch_size": 8}}


class Noise:
    """A source of random images of the size that the tests use."""

    labels = ("a", "b", "c", "d")

    def __len__(self):
        return 24

    def read(self, index):
        draws = rand(24, 3, 9, 12, seed=5, dtype=torch.float64)
        y = torch.arange(24) % 4
        return uf.Batch(draws[index], y[index], tuple(str(i) for i in index))


def prepared(card, model, **options):
    """The method, short, and fitted where it must be."""
    method = card.with_options(**SETTINGS.get(card.name, {}) | options)
    if card.fitted:
        method.fit(model, Dataset("noise", Noise()), **FITS.get(card.name, {}))
    return method


@pytest.fixture
def x():
    return rand(4, 3, 9, 12, dtype=torch.float64)


@every_map
def test_shape_and_batch_equals_singles(network, x, name):
    model = network("relu", torch.float64)
    y = torch.tensor([0, 1, 2, 3])
    interpret = prepared(CARDS[name], model)
    shown = interpret(model, x, y)
    assert shown.shape[:2] == (4, 1)
    assert shown.shape[2] <= 9
    assert shown.shape[3] <= 12
    assert torch.isfinite(shown).all()
    assert not shown.requires_grad
    singles = torch.cat([interpret(model, x[i : i + 1], y[i : i + 1]) for i in range(4)])
    assert torch.allclose(shown, singles, atol=1e-10)
    with torch.no_grad():
        assert torch.equal(interpret(model, x, y), shown)  # works where gradients are off


@every_interpreter
def test_the_model_is_left_as_it_was_found(network, x, name):
    model = network("relu", torch.float64).train()
    state = torch.random.get_rng_state()
    before = x.clone()
    hooks = [(len(m._forward_hooks), len(m._backward_hooks), m.training) for m in model.modules()]
    prepared(CARDS[name], model)(model, x, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(x, before)
    assert [(len(m._forward_hooks), len(m._backward_hooks), m.training) for m in model.modules()] == hooks
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def settings(card):
    """The default, and where the map's own derivative can be exact, that too; with how near each must come."""
    yield {}, 0.05
    if "double_backward" in card.options:
        yield {"double_backward": "exact"}, 1e-5


@pytest.mark.parametrize(
    ("name", "options", "tolerance"), [(n, *s) for n, card in MAPS.items() for s in settings(card)]
)
def test_differentiable_iff_the_card_says_so(network, x, name, options, tolerance):
    model, card = network("smooth", torch.float64), CARDS[name]
    y = torch.tensor([0, 1, 2, 3])
    x = x.clone().requires_grad_()
    interpret = prepared(card, model, **options)
    shown = interpret(model, x, y)
    assert shown.requires_grad == card.facts.differentiable
    if not shown.requires_grad:
        return
    weights = randn(shown.shape, seed=1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((weights * shown).sum(), x)
    generator, step = torch.Generator().manual_seed(2), 1e-6
    directions = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in range(8)]
    claimed, measured = [], []
    for direction in directions:
        with torch.no_grad():
            ahead, behind = (interpret(model, x + s * direction, y) for s in (step, -step))
        measured.append((weights * (ahead - behind)).sum().item() / (2 * step))
        claimed.append((slope * direction).sum().item())
    gap = torch.tensor(claimed) - torch.tensor(measured)
    assert gap.norm() <= tolerance * torch.tensor(measured).norm()


@every_interpreter
def test_classes_outside_the_model_are_named(network, x, name):
    model = network("relu", torch.float64)
    interpret = prepared(CARDS[name], model)
    with pytest.raises(DataError, match="class 9 .* 4 classes"):
        interpret(model, x, torch.tensor([0, 1, 2, 9]))
    with pytest.raises(DataError, match="must be int64"):
        interpret(model, x, torch.tensor([0.0] * 4))


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.fitted])
def test_one_that_is_fitted_says_so_before(network, x, name):
    with pytest.raises(NotFitted, match="fit"):
        CARDS[name](network("relu", torch.float64), x, torch.zeros(4, dtype=torch.int64))


@every_map
def test_a_map_of_one_image_does_not_depend_on_how_many_go_at_once(network, x, name):
    card, model = CARDS[name], network("relu", torch.float64)
    if "chunk" not in card.options:
        return
    y = torch.tensor([0, 1, 2, 3])
    small, large = (prepared(card, model, chunk=chunk)(model, x, y) for chunk in (3, 64))
    assert torch.allclose(small, large, atol=1e-10)
    with pytest.raises(ValueError, match="chunk .* at least 1"):
        prepared(card, model, chunk=0)(model, x, y)


def giving(kind):
    return pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.facts.gives == kind])


@giving("images")
def test_images_stay_in_the_box_and_change_the_answer(network, x, name):
    model = network("relu", torch.float64)
    y = model(x).argmax(1).detach()
    change = prepared(CARDS[name], model)
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
def test_examples_are_known_images_nearest_first(network, x, name):
    model, y = network("relu", torch.float64), torch.tensor([0, 1, 2, 3])
    show = prepared(CARDS[name], model)
    seen = show(model, x, y)
    k = seen.index.shape[1]
    assert len(seen) == 4 and seen.distance.shape == seen.y.shape == (4, k) and seen.x.shape == (4, k, 3, 9, 12)
    assert [len(row) for row in (*seen.ids, *seen.notes)] == [k] * 8
    for row, distances in zip(seen.notes, seen.distance, strict=True):
        for note in set(row):
            of_it = distances[[i for i, other in enumerate(row) if other == note]]
            assert torch.equal(of_it, of_it.sort().values)
    there = seen.index >= 0
    known = Noise().read(seen.index[there].tolist())
    assert there.any() and torch.equal(seen.x[there], known.x) and torch.equal(seen.y[there], known.y)
    assert known.ids == tuple(i for ids in seen.ids for i in ids if i)
    assert bool((seen.x[~there] == 0).all()) and bool(seen.distance[~there].isinf().all())
    for i in range(4):
        single = show(model, x[i : i + 1], y[i : i + 1])
        assert torch.equal(single.index[0], seen.index[i]) and single.notes[0] == seen.notes[i]
        assert torch.allclose(single.distance[0], seen.distance[i], atol=1e-10)


@giving("rules")
def test_rules_are_sentences_for_every_image(network, x, name):
    model, y = network("relu", torch.float64), torch.tensor([0, 1, 2, 3])
    explain = prepared(CARDS[name], model)
    rules = explain(model, x, y)
    assert len(rules) == 4 and all(rule and all(isinstance(line, str) and line for line in rule) for rule in rules)
    assert [explain(model, x[i : i + 1], y[i : i + 1])[0] for i in range(4)] == rules
    assert 0 <= explain.fidelity.low <= explain.fidelity.value <= explain.fidelity.high <= 1
