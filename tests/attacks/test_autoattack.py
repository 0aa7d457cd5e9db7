"""AutoAttack: exact on a linear model, where robust means far enough; what leaves costs nothing more."""

from __future__ import annotations

import sys

import pytest
import torch

import underfire as uf
from tests.networks import linear, rand
from underfire.errors import Unsupported

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


@pytest.mark.slow
@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_linear_model_is_robust_exactly_where_the_boundary_is_farther_than_eps(norm, classes):
    generator = torch.Generator().manual_seed(classes)
    weight = torch.randn(classes, 12, generator=generator, dtype=torch.float64)
    bias = 0.1 * torch.randn(classes, generator=generator, dtype=torch.float64) - weight.sum(1) / 2
    model = linear(weight, bias)
    x = 0.475 + 0.05 * torch.rand(8, 3, 2, 2, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
        y = logits.argmax(1)
        slope = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=DUAL[norm], dim=2)
        gap = logits.gather(1, y[:, None]) - logits
    distance = torch.where(slope > 0, gap / slope.clamp_min(1e-12), float("inf")).amin(1)
    room = torch.arange(8) % 2 == 0
    eps = torch.where(room, 1.02 * distance, 0.98 * distance)
    assert (distance < 0.4).all()  # so that the box does not matter
    x_adv = uf.attacks.autoattack(model, x, y, norm=norm, eps=eps, steps=20, queries=5, generator=generator)
    assert torch.equal(model(x_adv).argmax(1) != y, room)
    assert torch.equal(x_adv[~room], x[~room])


def test_the_standards_passes_for_what_is_robust_and_a_handful_for_what_is_not(network):
    model = network()
    x = rand(6, 3, 8, 8)
    y = model.predict(x).argmax(1)
    with model.counting() as count:
        x_adv = uf.attacks.autoattack(model, x, y, eps=torch.tensor([0.0] + [0.3] * 5), steps=10, queries=30)
    assert (model.predict(x_adv).argmax(1) != y).tolist() == [False] + [True] * 5
    # The clean image, and one after each member; 11 iterates; for each of 3 classes 11 iterates, and 10 steps of two
    # passes; 30 queries.
    robust = 5 + 11 + (1 + 33) + (1 + 60) + 30
    assert robust <= count.forwards <= robust + 5 * 12
    with model.counting() as count:
        uf.attacks.autoattack(model, x, (y + 1) % 4, steps=10)
    assert count.forwards == 6  # wrong already
    assert count.backwards == 0


def test_every_sample_has_its_own_budget_of_queries(network):
    model = network()
    x = rand(2, 3, 8, 8)
    y = model.predict(x).argmax(1)
    passes = []
    for queries in ([3, 40], [3, 3]):
        with model.counting() as count:
            uf.attacks.autoattack(model, x, y, eps=0.0, steps=2, queries=torch.tensor(queries))
        passes.append(count.forwards)
    assert passes[0] - passes[1] == 37


def test_no_goal(network):
    model, x, y = network(), rand(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(Unsupported, match="the standard is untargeted"):
        uf.attacks.autoattack(model, x, y, goal=y + 1)


def test_the_weights_lie_in_memory_as_they_did(network):
    model = network()
    before = [(weight.data_ptr(), weight.stride(), weight.clone()) for weight in model.parameters()]
    x = rand(2, 3, 8, 8)
    uf.attacks.autoattack(model, x, model.predict(x).argmax(1), eps=0.01, steps=2, queries=3)
    for weight, (place, stride, value) in zip(model.parameters(), before, strict=True):
        assert (weight.data_ptr(), weight.stride()) == (place, stride)
        assert torch.equal(weight, value)


def test_no_more_than_a_chunk_at_once(network):
    sizes, model = [], network()
    model.module.register_forward_hook(lambda module, given, answer: sizes.append(len(answer)))
    x = rand(7, 3, 8, 8)
    y = model.predict(x).argmax(1)
    sizes.clear()
    uf.attacks.autoattack(model, x, y, eps=0.001, steps=2, queries=3, chunk=3)
    assert max(sizes) == 3
    uf.attacks.fab(model, x, y, steps=5, chunk=3)  # with its final search
    assert max(sizes) == 3


@pytest.mark.parametrize(("norm", "patience"), [("linf", 1), ("l2", 1), ("l1", None)])
def test_fab_is_patient_under_l1(network, monkeypatch, norm, patience):
    seen, module = [], sys.modules["underfire.attacks.autoattack"]

    def spy(model, x, y, **options):
        seen.append(options["patience"])
        return x

    monkeypatch.setattr(module, "fab", spy)
    model, x = network(), rand(1, 3, 8, 8)
    y = model.predict(x).argmax(1)
    uf.attacks.autoattack(model, x, y, norm=norm, eps=0.0, steps=2, queries=3, patience=1)
    assert seen == [patience]
