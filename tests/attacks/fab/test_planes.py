"""The nearest point of a plane inside the box, against general solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from underfire.ascent.threats import ball
from underfire.attacks.fab.planes import onto_plane

optimize = pytest.importorskip("scipy.optimize")


def slow(x: np.ndarray, w: np.ndarray, lack: float, norm: str) -> float:
    """The length of the shortest change, by linear programming or sequential quadratic programming."""
    n = len(x)
    if norm == "l2":
        found = optimize.minimize(
            lambda d: (d**2).sum(),
            np.zeros(n),
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints={"type": "eq", "fun": lambda d: w @ d - lack, "jac": lambda d: w},
            options={"maxiter": 500, "ftol": 1e-14},
        )
        return float(np.sqrt(found.fun))
    bound = np.ones((n, 1)) if norm == "linf" else np.eye(n)  # |d_i| <= t, or <= t_i
    count = bound.shape[1]
    above = np.block([[np.eye(n), -bound], [-np.eye(n), -bound]])
    cost = np.concatenate([np.zeros(n), np.ones(count)])
    limits = [*zip(-x, 1 - x, strict=True), *[(0, None)] * count]
    equal = np.concatenate([w, np.zeros(count)])[None]
    return float(optimize.linprog(cost, above, np.zeros(2 * n), equal, [lack], limits).fun)


@pytest.fixture
def planes() -> tuple[Tensor, Tensor, Tensor]:
    """Points with entries at 0 and 1, normals with zeros, and planes that the box reaches, near and far, both sides."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 3, 4, generator=generator, dtype=torch.float64)
    x[:, 0, 0, :2], x[:, 0, 1, 0] = torch.tensor([0.0, 1.0], dtype=torch.float64), 0
    w = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    w[:, 0, 2, 3] = 0
    far = (w.abs() * torch.where(w > 0, 1 - x, x)).flatten(1).sum(1)
    near = (w.abs() * torch.where(w < 0, 1 - x, x)).flatten(1).sum(1)
    part = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.01, 0.2, 0.5, 0.9], dtype=torch.float64)
    return x, w, torch.where(torch.arange(8) < 4, part * far, -part * near)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_as_short_as_a_general_solver_finds(planes: tuple[Tensor, Tensor, Tensor], norm: str) -> None:
    x, w, lack = planes
    d = onto_plane(x, w, lack, ball(norm, 0))
    assert torch.allclose((w * d).flatten(1).sum(1), lack)
    assert ((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all()
    size = torch.linalg.vector_norm(d.flatten(1), ord=float(norm[1:]), dim=1)
    wanted = [slow(x[i].flatten().numpy(), w[i].flatten().numpy(), float(lack[i]), norm) for i in range(len(x))]
    assert size.tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_the_box_cannot_reach_goes_to_the_corner(planes: tuple[Tensor, Tensor, Tensor], norm: str) -> None:
    x, w, _ = planes
    d = onto_plane(x, w, torch.full((8,), 100.0, dtype=torch.float64), ball(norm, 0))
    assert torch.allclose(x + d, torch.where(w > 0, 1.0, torch.where(w < 0, 0.0, x)))
    assert not onto_plane(x, w, torch.zeros(8, dtype=torch.float64), ball(norm, 0)).any()
    assert not onto_plane(x, torch.zeros_like(w), torch.ones(8, dtype=torch.float64), ball(norm, 0)).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_length_of_the_normal_does_not_matter(
    planes: tuple[Tensor, Tensor, Tensor], norm: str, scale: float
) -> None:
    x, w, lack = (part.float() for part in planes)
    assert torch.allclose(
        onto_plane(x, w * scale, lack * scale, ball(norm, 0)), onto_plane(x, w, lack, ball(norm, 0)), atol=1e-5
    )
