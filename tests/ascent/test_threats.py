"""Projections against a slow reference, directions against their definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from tests.networks import randn
from underfire.ascent.threats import BALLS, L0, L1, L2, Linf, ball
from underfire.errors import InputError, Unsupported


def points(seed: int, batch: int = 4, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 2, 3, 3, generator=generator, dtype=torch.float64)
    x[:, :, 0, 0], x[:, :, 1, 1] = 0, 1  # pixels on the edge of the box
    return x, x + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)


def slow_l2(x: np.ndarray, z: np.ndarray, eps: float) -> np.ndarray:
    def at(multiplier: float) -> np.ndarray:
        return np.clip((z + multiplier * x) / (1 + multiplier), 0, 1)

    def excess(multiplier: float) -> float:
        return float(np.linalg.norm(at(multiplier) - x) - eps)

    return at(0) if excess(0) <= 0 else at(brentq(excess, 0, 1e9, xtol=1e-14))


def slow_l1(x: np.ndarray, z: np.ndarray, eps: float) -> np.ndarray:
    d = z - x

    def at(t: float) -> np.ndarray:
        return np.clip(x + np.sign(d) * np.maximum(np.abs(d) - t, 0), 0, 1)

    def excess(t: float) -> float:
        return float(np.abs(at(t) - x).sum() - eps)

    return at(0) if excess(0) <= 0 else at(brentq(excess, 0, np.abs(d).max(), xtol=1e-14))


@pytest.mark.slow
@pytest.mark.parametrize(("threat", "reference"), [(L2, slow_l2), (L1, slow_l1)])
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 4), spread=st.sampled_from([0.05, 0.5, 3.0]))
@settings(max_examples=60, deadline=None)
def test_projection_is_the_nearest_point_of_ball_and_box(threat, reference, seed, eps, spread):
    x, z = points(seed, spread=spread)
    projected = threat(eps).project(x, z)
    slow = np.stack([reference(a, b, eps) for a, b in zip(x.numpy(), z.numpy(), strict=True)])
    assert np.allclose(projected.numpy(), slow, atol=1e-6)
    assert (threat(eps).size(x, projected) <= eps * (1 + 1e-6)).all()
    assert torch.allclose(threat(eps).project(x, projected), projected, atol=1e-8)


def test_l2_projection_agrees_with_a_general_solver():
    x, z = points(3, batch=1)
    solved = minimize(
        lambda v: ((v - z.numpy().ravel()) ** 2).sum(),
        x.numpy().ravel(),
        jac=lambda v: 2 * (v - z.numpy().ravel()),
        bounds=[(0, 1)] * x.numel(),
        constraints={"type": "ineq", "fun": lambda v: 0.49 - ((v - x.numpy().ravel()) ** 2).sum()},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.allclose(L2(0.7).project(x, z).numpy().ravel(), solved.x, atol=1e-4)


@given(seed=st.integers(0, 10_000), eps=st.integers(0, 18))
@settings(max_examples=30, deadline=None)
def test_l0_projection_keeps_the_entries_that_save_most(seed, eps):
    x, z = points(seed, batch=1)
    projected = L0(eps).project(x, z)
    clipped = z.clamp(0, 1)
    left = ((z - x) ** 2 - (z - clipped) ** 2).flatten().sort(descending=True).values[eps:].sum()
    best = ((z - clipped) ** 2).sum() + left  # the distance with the best eps entries, without naming them
    assert torch.isclose(((z - projected) ** 2).sum(), best, atol=1e-10)
    assert int((projected != x).sum()) <= eps


def test_linf_projection_clips_every_entry():
    x, z = points(0)
    assert torch.equal(Linf(0.1).project(x, z), z.clamp(x - 0.1, x + 0.1).clamp(0, 1))


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("start", ["zero", "random"])
def test_starts_lie_inside(norm, start):
    x, _ = points(1)
    eps = torch.tensor([0.0, 0.3, 1.0, 5.0], dtype=torch.float64)
    threat = ball(norm, eps)
    z = threat.start(x) if start == "zero" else threat.random_start(x, torch.Generator().manual_seed(0))
    assert (threat.size(x, z) <= eps + 1e-9).all()
    assert ((z >= 0) & (z <= 1)).all()
    if start == "random":
        again = threat.random_start(x, torch.Generator().manual_seed(0))
        assert torch.equal(z, again)
        assert (threat.size(x, z)[2:] > 0).all()


@pytest.mark.parametrize("norm", BALLS)
def test_mask_and_per_sample_eps(norm):
    x, z = points(5)
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    mask[..., 1:] = 1
    eps = torch.tensor([0.0, 0.1, 1.0, 50.0], dtype=torch.float64)
    threat = ball(norm, eps, mask)
    for point in (threat.project(x, z), threat.random_start(x, torch.Generator().manual_seed(1))):
        assert torch.equal(point[..., 0], x[..., 0])
        assert (threat.size(x, point) <= eps + 1e-6).all()
    rows = torch.tensor([3, 1])
    assert torch.allclose(threat.take(rows).project(x[rows], z[rows]), threat.project(x, z)[rows])
    assert (threat.steepest(torch.randn_like(x), x, x.clone())[..., 0] == 0).all()


@pytest.mark.parametrize(("threat", "order", "dual"), [(Linf, math.inf, 1), (L2, 2, 2), (L1, 1, math.inf)])
def test_steepest_reaches_the_dual_norm(threat, order, dual):
    x = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    g = randn(x.shape, dtype=torch.float64)
    d = (threat(1.0, sparsity=0.0) if threat is L1 else threat(1.0)).steepest(g, x, x)
    assert torch.allclose(torch.linalg.vector_norm(d.flatten(1), order, dim=1), torch.ones(3, dtype=torch.float64))
    reached, best = (g * d).flatten(1).sum(1), torch.linalg.vector_norm(g.flatten(1), dual, dim=1)
    assert torch.allclose(reached, best)


def test_l1_moves_only_what_can_move():
    x = torch.zeros(1, 1, 2, 2)
    g = torch.tensor([[[[-5.0, 1.0], [0.5, 0.1]]]])  # the largest entry points out of the box
    assert L1(1.0, sparsity=0.0).steepest(g, x, x).flatten().tolist() == [0, 1, 0, 0]


def test_bad_thresholds_are_named():
    x, _ = points(0)
    with pytest.raises(InputError, match="eps .* got -0.1"):
        Linf(-0.1).check(x)
    with pytest.raises(InputError, match="one per sample"):
        L2(torch.ones(3)).check(x)
    with pytest.raises(InputError, match="does not fit"):
        L2(1.0, torch.ones(5, 5)).check(x)
    with pytest.raises(InputError, match="eps .* got nan"):
        Linf(float("nan")).check(x)
    with pytest.raises(Unsupported, match="norm 'l3'"):
        ball("l3", 1.0)


@pytest.mark.parametrize("norm", ["l2", "l1", "l0"])
def test_a_random_start_under_a_mask_uses_the_whole_radius(norm):
    x = torch.full((64, 1, 16, 16), 0.5, dtype=torch.float64)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    mask[..., :4, :4] = 1
    eps = {"l2": 0.5, "l1": 2.0, "l0": 10.0}[norm]
    sizes = ball(norm, eps, mask).size(x, ball(norm, eps, mask).random_start(x, torch.Generator().manual_seed(0)))
    assert sizes.mean() > 0.85 * eps


def test_random_starts_of_l2_fill_the_ball_evenly():
    """The share of points within half the radius is 2 to the minus d."""
    x = torch.full((4000, 1, 1, 3), 0.5, dtype=torch.float64)
    sizes = L2(0.4).size(x, L2(0.4).random_start(x, torch.Generator().manual_seed(0)))
    assert (sizes < 0.2).double().mean().item() == pytest.approx(1 / 8, abs=0.02)


def test_sparsity_is_the_share_of_entries_that_move():
    x = torch.full((2, 1, 10, 10), 0.5)
    g = randn(x.shape)
    assert (L1(1.0, sparsity=0.1).steepest(g, x, x) != 0).flatten(1).sum(1).tolist() == [10, 10]
