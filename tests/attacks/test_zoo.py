"""ZOO against a slow loop with exact derivatives, and its budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import randn
from underfire.errors import InputError, OracleError, Unsupported


class Bowl(nn.Module):
    """Two logits; their difference is a smooth function of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = randn(2 * 3 * 4, seed=3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        lead = (x - 0.5).flatten(1) @ self.weight + (x - 0.5).square().flatten(1).sum(1) - 1.0
        return torch.stack([torch.zeros_like(lead), lead], 1)


@pytest.fixture
def x() -> Tensor:
    x = 0.5 + 0.03 * randn(3, 2, 3, 4, dtype=torch.float64)
    x[0, 0, 0, 0], x[1, 0, 0, 1] = 0.0, 1.0
    return x


def slow(x: Tensor, steps: int, c: float, solver: str) -> Tensor:
    """Every coordinate in every step, by back-propagation; the nearest success."""
    model, best, size = Bowl(), x.clone(), torch.full((3,), float("inf"))
    z, m, v = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
    for t in range(1, steps + 1):
        z.requires_grad_()
        logits = model(z)
        loss = (z - x).square().flatten(1).sum(1) + c * (logits[:, 0] - logits[:, 1]).clamp_min(0)
        (g,) = torch.autograd.grad(loss.sum(), z)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        adam = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        # The second derivative of the distance is 2, that of minus the lead -2.
        curvature = 2 - 2 * c * (logits[:, 0] > logits[:, 1]).to(x).reshape(-1, 1, 1, 1)
        newton = g / torch.where(curvature > 0, curvature, 1)
        z = (z.detach() - 0.01 * (adam if solver == "adam" else newton)).clamp(0, 1)
        far = (z - x).flatten(1).norm(dim=1)
        better = (model(z).argmax(1) == 1) & (far < size)
        best[better], size[better] = z[better], far[better].to(size)
    return best


@pytest.mark.parametrize(("solver", "c"), [("adam", 2.0), ("newton", 0.8), ("newton", 5.0)])
def test_all_coordinates_at_once_are_plain_descent(x: Tensor, solver: str, c: float) -> None:
    x[:, :, 0, 0] = 0.45  # away from the border, where a difference is one-sided
    x[1, 0, 0, 1] = 0.6
    y = Bowl()(x).argmax(1)
    assert (y == 0).all()
    steps, h = 60, 1e-7 if solver == "adam" else 1e-4  # a difference across the hinge is neither slope
    x_adv = uf.attacks.zoo(Bowl(), x, y, queries=49 * steps + 1, c=c, solver=solver, step_size=0.01, step=h)
    assert torch.allclose(x_adv, slow(x, steps, c, solver), atol=1e-6)
    if solver == "adam":
        assert (Bowl()(x_adv).argmax(1) == 1).all()


@pytest.mark.parametrize(("queries", "spent"), [(1, 1), (11, 1), (12, 12), (100, 100), (110, 100)])
def test_a_step_costs_two_per_coordinate_and_one(x: Tensor, queries: int, spent: int) -> None:
    oracle = uf.Oracle(lambda x: torch.zeros(len(x)), 2)
    y = torch.zeros(3, dtype=torch.int64)
    uf.attacks.zoo(oracle, x, y, queries=queries, coordinates=5)
    assert oracle.queries == 3 * spent
    oracle.queries = 0
    uf.attacks.zoo(oracle, x, y, queries=torch.tensor([queries, 1, 45]), coordinates=5, binary_search_steps=2)
    assert oracle.queries <= queries + 46


@pytest.mark.parametrize("options", [{"sides": (2, 4)}, {"importance": True}, {"binary_search_steps": 4, "c": 1e-2}])
def test_smaller_spaces_and_chosen_coordinates(
    x: Tensor, generator: torch.Generator, options: dict[str, object]
) -> None:
    model, y = Bowl(), torch.zeros(3, dtype=torch.int64)
    x_adv = uf.attacks.zoo(
        model, x, y, **{"queries": 1800, "coordinates": 8, "c": 2.0, "generator": generator, **options}
    )
    assert (model(x_adv).argmax(1) == 1).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_an_oracle_that_fails_leaves_what_was_found(x: Tensor) -> None:
    left = 100

    def answer(x: Tensor) -> Tensor:
        nonlocal left
        left -= len(x)
        if left < 0:
            raise ConnectionError("gone")
        return torch.zeros(len(x))

    with pytest.raises(OracleError, match="gone") as caught:
        uf.attacks.zoo(uf.Oracle(answer, 2), x, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(caught.value.found, x)


def test_bad_settings(x: Tensor) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(Unsupported, match="choices: adam, newton"):
        uf.attacks.zoo(Bowl(), x, y, solver="sgd")
    with pytest.raises(InputError, match="c must be > 0"):
        uf.attacks.zoo(Bowl(), x, y, step=0.0)
    with pytest.raises(InputError, match="side .* at least 1"):
        uf.attacks.zoo(Bowl(), x, y, sides=(0, 4))
