"""Attacks that estimate gradients from scores: NES, SPSA and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import half_space, rand, randn
from underfire.errors import InputError, OracleError

ATTACKS = {
    "nes": {"samples": 7},
    "spsa": {"samples": 7},
    "finite_differences": {"steps": 3},
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


SLOPES = randn(3, 4, 5, seed=3, dtype=torch.float64)
SLOPES += SLOPES.sign()


def plane(bias: float) -> nn.Module:
    """Two logits, whose difference is linear and, with a large bias, never changes sign."""
    return half_space(SLOPES, -bias)


@pytest.fixture
def x() -> Tensor:
    return 0.3 + 0.4 * rand(4, 3, 4, 5, dtype=torch.float64)


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return getattr(uf.attacks, name)(model, x, y, generator=generator, **{**ATTACKS[name], **options})


@every_attack
@pytest.mark.parametrize("queries", [1, 2, 3, 4, 16, 46, 100])
def test_the_budget_is_spent_and_never_exceeded(x: Tensor, name: str, queries: int) -> None:
    oracle = uf.Oracle(lambda x: torch.zeros(len(x)), classes=2)
    y = torch.zeros(4, dtype=torch.int64)
    run(name, oracle, x[:1], y[:1], queries=queries)
    assert oracle.queries <= queries
    if name != "finite_differences":  # which divides its queries by its steps
        assert oracle.queries > queries - 3
    spent = oracle.queries
    limits = torch.tensor([queries, 1, 2 * queries, queries])
    oracle.queries = 0
    run(name, oracle, x, y, queries=limits)
    assert 2 * spent + 1 <= oracle.queries <= int(limits.sum())


@every_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_point_of_a_linear_model(x: Tensor, name: str, norm: str) -> None:
    """Which is `eps` along the slope, or its sign."""
    model, y = plane(1e3), torch.zeros(4, dtype=torch.int64)
    x_adv = run(name, model, x, y, norm=norm, eps=0.2, queries=3000, **({} if "f" in name else {"samples": 60}))
    w = SLOPES
    best = (x + 0.2 * (w.sign() if norm == "linf" else w / w.norm())).clamp(0, 1)
    gained, possible = (model(z)[:, 1] - model(x)[:, 1] for z in (x_adv, best))
    assert (gained >= (1 - 1e-6 if name == "finite_differences" else 0.9) * possible).all()


def test_finite_differences_in_one_step_are_fgsm(x: Tensor) -> None:
    """Every entry is probed by itself for two queries; the image itself costs one, and so does the answer."""
    model, y = plane(1e3), torch.zeros(4, dtype=torch.int64)
    x[0, 0, 0, 0], x[1, 0, 0, 1] = 0, 1  # where half of a probe is clipped
    x_adv = uf.attacks.finite_differences(model, x, y, steps=1, queries=2 * 60 + 2, eps=0.1)
    assert torch.allclose(x_adv, (x + 0.1 * SLOPES.sign()).clamp(0, 1), atol=1e-12)


def test_what_is_fooled_costs_nothing_more(x: Tensor) -> None:
    model = uf.Classifier(plane(float((x[0] * SLOPES).sum()) + 0.05))
    y = model(x[:1]).argmax(1)
    with model.counting() as count:
        uf.attacks.nes(model, x[:1], 1 - y)  # wrong from the start
    assert count.forwards == 1
    with model.counting() as count:
        x_adv = uf.attacks.nes(model, x[:1], y, samples=10, eps=0.1)
    assert count.forwards == 1 + 20 + 1
    assert (model(x_adv).argmax(1) != y).all()


@every_attack
def test_a_success_by_equal_logits_counts(x: Tensor, name: str) -> None:
    """The margin is zero before and after, and the class is the first of the largest logits."""

    class Ties(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rise = x.flatten(1).mean(1) - 0.5
            first = torch.where(rise > 0.001, 0.0, -1.0)
            last = torch.where(rise.abs() < 1e-9, 0.0, rise.clamp(max=0.5) - 1)
            return torch.stack([first, torch.zeros_like(rise), last], 1)

    x, y = torch.full_like(x[:1], 0.5), torch.ones(1, dtype=torch.int64)
    assert Ties()(x).argmax(1) == 1
    x_adv = run(name, Ties(), x, y, eps=0.2, queries=1000)
    assert Ties()(x_adv).argmax(1) == 0


@every_attack
def test_an_oracle_that_fails_leaves_what_was_found(x: Tensor, name: str) -> None:
    left = 200

    def answer(x: Tensor) -> Tensor:
        nonlocal left
        left -= len(x)
        if left < 0:
            raise ConnectionError("gone")
        return torch.zeros(len(x))

    with pytest.raises(OracleError, match="gone") as caught:
        run(name, uf.Oracle(answer, 2), x, torch.zeros(4, dtype=torch.int64))
    assert caught.value.found.shape == x.shape


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nes", {"sigma": 0.0}, "sigma must be > 0"),
        ("nes", {"samples": 0}, "samples must be at least 1"),
        ("spsa", {"step": 0.0}, "step must be > 0"),
        ("finite_differences", {"step": -1.0}, "step must be > 0"),
        ("finite_differences", {"queries": torch.ones(3, dtype=torch.int64)}, "one per sample"),
    ],
)
def test_bad_settings(x: Tensor, name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(name, plane(0), x, torch.zeros(4, dtype=torch.int64), **options)
