"""Differential evolution of a few pixels: the best pixel of a linear model is known, and scipy has the same method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import half_space, rand, randn
from underfire.attacks.one_pixel import _Evolution, paint
from underfire.errors import InputError, OracleError, Unsupported
from underfire.measures.perturbation import l0_pixels

SLOPES = randn(3, 6, 7, seed=3)


def plane(scale: float = 1.0) -> nn.Module:
    """Two logits, whose difference is linear and never changes sign."""
    return half_space(scale * SLOPES, -100 * scale)


@pytest.fixture
def x() -> Tensor:
    return rand(3, 3, 6, 7)


@pytest.mark.parametrize("scale", [1.0, 1e4])  # a probability is zero long before
def test_the_best_pixels_of_a_linear_model(x: Tensor, generator: torch.Generator, scale: float) -> None:
    model, y, eps = plane(scale), torch.zeros(3, dtype=torch.int64), torch.tensor([1.0, 2.0, 0.0])
    x_adv = uf.attacks.one_pixel(model, x, y, eps=eps, population=150, steps=40, generator=generator)
    gain = torch.maximum(scale * SLOPES * (1 - x), -scale * SLOPES * x).sum(1).flatten(1)
    best = gain.sort(dim=1, descending=True).values.cumsum(1)
    gained = model(x_adv)[:, 1] - model(x)[:, 1]
    assert (gained[:2] >= torch.tensor([0.85, 0.7]) * torch.stack([best[0, 0], best[1, 1]])).all()
    assert (l0_pixels(x, x_adv) <= eps).all()
    assert torch.equal(x_adv[2], x[2])


def test_every_generation_costs_its_population(x: Tensor, generator: torch.Generator) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    model = uf.Classifier(plane())
    with model.counting() as count:
        uf.attacks.one_pixel(model, x, y, population=10, steps=4, eps=torch.tensor([1, 0, 3]), generator=generator)
    assert count.forwards == 2 * 10 * 5  # nothing for what may not change
    with model.counting() as count:
        uf.attacks.one_pixel(model, x, 1 - y, population=10, steps=4, generator=generator)
    assert count.forwards == 3 * 10  # every candidate of the first generation succeeds


def test_as_good_as_scipy(relu_model: uf.Classifier, x: Tensor, generator: torch.Generator) -> None:
    """The same evaluations, the same strategy: a similar probability of the class (the mean of 24 images is ours)."""
    optimize = pytest.importorskip("scipy.optimize")
    with torch.no_grad():
        relu_model.module[-1].bias[relu_model(x).argmax(1)[0]] += 100  # so that nothing succeeds, and nobody stops
    y = relu_model(x).argmax(1)

    def lead(images: Tensor, label: Tensor) -> Tensor:
        logits = relu_model(images)
        others = logits.clone()
        others[:, label] = float("-inf")
        return others.logsumexp(1) - logits[:, label]

    x_adv = uf.attacks.one_pixel(relu_model, x, y, population=40, steps=10, base="best", generator=generator)
    ours, theirs = [], []
    with torch.no_grad():
        for i in range(3):

            def worst(genes, i=i):
                genes = torch.as_tensor(genes.T, dtype=x.dtype)[:, None]
                images = paint(x[i : i + 1].expand(len(genes), -1, -1, -1), genes, torch.ones(len(genes)))
                return -lead(images, y[i]).numpy()

            bounds = [(0, 6 - 1e-4), (0, 7 - 1e-4), (0, 1), (0, 1), (0, 1)]
            found = optimize.differential_evolution(
                worst, bounds, maxiter=10, popsize=8, init="random", recombination=1, mutation=0.5, tol=0, atol=-1,
                polish=False, vectorized=True, updating="deferred", rng=0,
            )  # fmt: skip
            clean = lead(x[i : i + 1], y[i]).item()
            theirs.append(-found.fun - clean)
            ours.append(lead(x_adv[i : i + 1], y[i]).item() - clean)
    assert sum(ours) >= 0.8 * sum(theirs)


def test_a_child_is_a_base_and_a_difference(x: Tensor, generator: torch.Generator) -> None:
    evolution = _Evolution(x, 12, 2, 0.5, "random", generator)
    fathers = evolution.first(5)
    three = torch.stack([torch.arange(12).expand(5, -1), *evolution._three(5)])
    assert (three.sort(0).values.diff(dim=0) > 0).all()  # all different, and none the father
    assert {len(draw.unique()) for draw in three} == {12}
    rows = torch.arange(5)[:, None]
    state = generator.get_state()
    child = evolution.children(fathers, torch.zeros(5, 12))
    generator.set_state(state)
    a, b, c = evolution._three(5)
    plain = fathers[rows, a] + 0.5 * (fathers[rows, b] - fathers[rows, c])
    assert torch.equal(child[..., 2:], plain[..., 2:].clamp(0, 1))
    inside = (plain[..., :2] >= 0) & (plain[..., :2] < torch.tensor([6.0, 7.0]))
    assert torch.equal(child[..., :2][inside], plain[..., :2][inside])
    assert (child[..., :2] < torch.tensor([6.0, 7.0])).all()


def test_paint_sets_pixels_of_every_channel(x: Tensor) -> None:
    genes = torch.tensor([[[2.9, 3.1, 0.1, 0.2, 0.3], [2.2, 3.9, 0.9, 0.9, 0.9], [5.0, 6.0, 0.5, 0.5, 0.5]]])
    painted = paint(x[:1], genes, torch.tensor([2]))
    wanted = x[:1].clone()
    wanted[0, :, 2, 3] = torch.tensor([0.1, 0.2, 0.3])  # the first of two that meet; the third is one too many
    assert torch.equal(painted, wanted)


def test_an_oracle_that_fails_leaves_what_was_found(x: Tensor, generator: torch.Generator) -> None:
    calls = 0

    def answer(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise ConnectionError("gone")
        return torch.zeros(len(x))

    with pytest.raises(OracleError, match="failed after 60 queries: gone") as caught:
        uf.attacks.one_pixel(
            uf.Oracle(answer, 2), x, torch.zeros(3, dtype=torch.int64), population=10, generator=generator
        )
    assert (l0_pixels(x, caught.value.found) == 1).all()


def test_bad_settings(x: Tensor) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="population .* at least 4"):
        uf.attacks.one_pixel(plane(), x, y, population=3)
    with pytest.raises(Unsupported, match="choices: random, best"):
        uf.attacks.one_pixel(plane(), x, y, base="worst")
