"""Parseval training: the projections and the retraction have known values, and trained layers are near tight frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tests.networks import rand, randn, seeded
from tests.training.toys import X, Y, network, plan
from underfire.training.parseval import ConvexSum, onto_simplex, orthonormality_error
from underfire.training.parseval.retraction import retract, retracted


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
def test_a_retraction_changes_every_singular_value_alone(shape: tuple[int, int]) -> None:
    """`W = U S V` becomes `U ((1 + b) S - b S^3) V`."""
    weights = randn(*shape, dtype=torch.float64)
    left, s, right = torch.linalg.svd(weights, full_matrices=False)
    wanted = left @ torch.diag(1.2 * s - 0.2 * s**3) @ right
    assert torch.allclose(retracted(weights, 0.2), wanted)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((0.3, 0.7), (0.3, 0.7)),
        ((2.0, 0.0), (1.0, 0.0)),
        ((1.0, 1.0, 1.0), (1 / 3,) * 3),
        ((0.5, 0.1, -3.0), (0.7, 0.3, 0.0)),
    ],
)
def test_the_projection_onto_the_simplex(values: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    assert torch.allclose(onto_simplex(torch.tensor(values)), torch.tensor(wanted))


def test_no_point_of_the_simplex_is_nearer_than_the_projection() -> None:
    point = randn(6, dtype=torch.float64)
    found = onto_simplex(point)
    others = torch.distributions.Dirichlet(torch.ones(6, dtype=torch.float64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = others.sample((500,))
    assert float(found.sum()) == pytest.approx(1) and bool((found >= 0).all())
    assert bool(((drawn - point).norm(dim=1) >= (found - point).norm()).all())


def test_a_retracted_convolution_enlarges_no_perturbation() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(0.05 * randn(3, 2, 3, 3, dtype=torch.float64))
    before = orthonormality_error(layer)
    retract(layer, 0.3, 1.0, 60, seeded())
    after = orthonormality_error(layer)
    assert before[""] > 0.1 > 1e-6 > after[""]
    matrix = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], rand(2, 5, 5, dtype=torch.float64))
    assert float(torch.linalg.matrix_norm(matrix.reshape(75, 50), 2)) <= 1 + 1e-6


def test_a_share_of_the_rows_of_a_large_layer_moves() -> None:
    layer = nn.Linear(4, 200)
    before = layer.weight.detach().clone()
    retract(layer, 0.1, 0.25, 1, seeded())
    assert int((layer.weight.detach() != before).any(1).sum()) == 50


class Residual(nn.Module):
    """A network with a convex sum."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.sum, self.head = nn.Linear(16, 16), ConvexSum(2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = x.flatten(1)
        return self.head(self.sum(x, self.branch(x).tanh()))


def test_training_keeps_frames_and_convex_sums() -> None:
    quick = plan(epochs=4, rate=0.01)
    plain = uf.training.standard(network(), (X, Y), plan=quick)
    made = uf.training.parseval(network(), (X, Y), beta=0.3, passes=5, plan=quick)
    assert max(orthonormality_error(made).values()) < 0.05 < max(orthonormality_error(plain).values())
    model = Residual()
    made = uf.training.parseval(model, (X.float(), Y), plan=plan(epochs=2, rate=1.0))
    coefficients = made.module.sum.coefficients.detach()
    assert float(coefficients.sum()) == pytest.approx(1) and bool((coefficients >= 0).all())
    assert not torch.equal(coefficients, torch.full((2,), 0.5))
