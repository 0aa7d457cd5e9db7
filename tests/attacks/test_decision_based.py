"""Boundary and HopSkipJump see decisions only; how near they come to a plane is tested with all of minimum size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import underfire as uf
from tests.networks import randn
from underfire.ascent.decisions import approach
from underfire.ascent.queries import Queries
from underfire.ascent.threats import ball
from underfire.attacks.boundary import Rate
from underfire.attacks.hop_skip_jump import normal
from underfire.errors import DataError, InputError, OracleError

WEIGHT = randn(48, seed=3, dtype=torch.float64)
every_attack = pytest.mark.parametrize("name", ["boundary", "hop_skip_jump"])


def side(x: Tensor) -> Tensor:
    """Three slabs of space, parallel to each other."""
    return torch.bucketize((x.flatten(1) - 0.5) @ WEIGHT, torch.tensor([-0.5, 0.5], dtype=torch.float64))


@pytest.fixture
def x() -> Tensor:
    return 0.5 + 0.02 * randn(5, 3, 4, 4, dtype=torch.float64)


def run(name: str, oracle: uf.Oracle, x: Tensor, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return getattr(uf.attacks, name)(oracle, x, side(x), generator=generator, **options)


@pytest.mark.slow
@every_attack
@pytest.mark.parametrize("queries", [1, 2, 3, 20, 21, 300])
def test_the_budget_is_never_exceeded(x: Tensor, name: str, queries: int) -> None:
    oracle = uf.Oracle(side, 3)
    run(name, oracle, x[:1], queries=queries)
    assert oracle.queries <= queries
    if name == "boundary":
        assert oracle.queries == queries
    oracle.queries = 0
    run(name, oracle, x, queries=torch.tensor([queries, 1, 50, 2, 3]))
    assert oracle.queries <= queries + 56


@pytest.mark.slow
@every_attack
def test_a_goal_is_reached_from_a_given_start(x: Tensor, name: str) -> None:
    starts = x + 0.3 * WEIGHT.view(3, 4, 4) / WEIGHT.abs().max()
    starts, goal = starts.clamp(0, 1), torch.full((5,), 2)
    assert (side(starts) == 2).all()
    assert (side(x) == 1).all()
    x_adv = run(name, uf.Oracle(side, 3), x, goal=goal, starts=starts, queries=1000)
    assert (side(x_adv) == 2).all()
    distance = (0.5 - (x - 0.5).flatten(1) @ WEIGHT) / WEIGHT.norm()
    assert ((x_adv - x).flatten(1).norm(dim=1) <= 1.25 * distance).all()


@every_attack
def test_a_goal_is_found_among_the_batch(x: Tensor, name: str) -> None:
    x = torch.cat([x, (x[:1] + 0.3 * WEIGHT.view(3, 4, 4) / WEIGHT.abs().max()).clamp(0, 1)])
    goal = torch.tensor([2, 2, 2, 2, 2, 1])
    x_adv = run(name, uf.Oracle(side, 3), x, goal=goal, draws=1, queries=300)
    assert torch.equal(side(x_adv), goal)


@every_attack
def test_without_a_start_the_image_comes_back(x: Tensor, name: str) -> None:
    oracle = uf.Oracle(lambda x: torch.ones(len(x)), 3)
    assert torch.equal(run(name, oracle, x, draws=4, queries=100), x)
    assert oracle.queries == 5 * (1 + 4)


@pytest.mark.slow
@every_attack
def test_what_is_farther_than_eps_comes_back_as_it_was(x: Tensor, name: str) -> None:
    free = run(name, uf.Oracle(side, 3), x, queries=200)
    size = (free - x).flatten(1).norm(dim=1)
    eps = torch.tensor([2.0, 0.5, 2.0, 0.5, 0.0], dtype=x.dtype) * size
    bound = run(name, uf.Oracle(side, 3), x, queries=200, eps=eps)
    assert torch.equal(bound[[0, 2]], free[[0, 2]])
    assert torch.equal(bound[[1, 3, 4]], x[[1, 3, 4]])


@every_attack
def test_an_oracle_that_fails_leaves_what_was_found(x: Tensor, name: str) -> None:
    left = 1500

    def answer(x: Tensor) -> Tensor:
        nonlocal left
        left -= len(x)
        if left < 0:
            raise ConnectionError("gone")
        return side(x)

    with pytest.raises(OracleError, match="gone") as caught:
        run(name, uf.Oracle(answer, 3), x)
    assert (side(caught.value.found) != side(x)).all()


@every_attack
def test_bad_settings(x: Tensor, name: str) -> None:
    with pytest.raises(DataError, match="starts must be"):
        run(name, uf.Oracle(side, 3), x, starts=x[:2])
    with pytest.raises(InputError, match="draws .* at least 1"):
        run(name, uf.Oracle(side, 3), x, draws=0)


def test_steps_of_the_boundary_attack_stay_shares(x: Tensor) -> None:
    """However much succeeds: a step of more than the distance would end on the other side of the image."""
    rate, everyone = Rate(x, 0.4, 1.5, 0.2, 0.5, 2), torch.arange(5)
    seen = []
    for _ in range(8):
        rate.learn(torch.tensor([True, True, True, True, False]), everyone)
        seen.append(rate.value.clone())
    assert torch.allclose(torch.stack(seen)[1::2, 0], torch.tensor([0.6, 0.9, 1.0, 1.0], dtype=x.dtype))
    assert torch.allclose(seen[-1][4], torch.tensor(0.4 / 1.5**4, dtype=x.dtype))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_bisection_ends_on_the_boundary(x: Tensor, norm: str) -> None:
    y = side(x)
    far = (x + WEIGHT.view(3, 4, 4) * 0.3).clamp(0, 1)
    oracle = uf.Oracle(side, 3)
    limits = torch.tensor([100, 100, 3, 100, 100])
    z = approach(Queries(oracle, x, y, limits), x, far, torch.arange(5), norm, 2.0**-20)
    assert (side(z) != y).all()
    height = ((z - 0.5).flatten(1) @ WEIGHT)[[0, 1, 3, 4]]
    assert ((height > 0.5) & (height < 0.5 + 1e-4)).all()
    assert oracle.queries == 4 * 20 + 3


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_normal_of_a_plane(x: Tensor, generator: torch.Generator, norm: str) -> None:
    """As near as theory says: each decision gives sqrt(2 / pi) of what a slope would, and no sample sees another."""
    up = x + (0.5 - (x - 0.5).flatten(1) @ WEIGHT).view(-1, 1, 1, 1) * WEIGHT.view(3, 4, 4) / WEIGHT.norm() ** 2
    query = Queries(uf.Oracle(side, 3), x, side(x), 10_000, chunk=333)
    count = torch.tensor([100, 400, 1600, 400, 400])
    delta = torch.tensor([0.1, 0.1, 0.1, 0.001, 0.1], dtype=x.dtype)
    v = normal(query, up, torch.arange(5), delta, count, ball(norm, 0), generator).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(v, WEIGHT.expand(5, -1))
    share = 2 / torch.pi * count / 48
    assert torch.allclose(cosine, (share / (1 + share)).sqrt().to(cosine), atol=0.12)
    assert torch.equal(query.used, count)
