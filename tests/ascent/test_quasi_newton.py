"""L-BFGS in a box against closed forms, SciPy, and itself on single samples."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.networks import randn
from underfire.ascent.quasi_newton import QuasiNewton


def minimum(f, z, rounds=200, low=None, high=None, **options):
    solver = QuasiNewton(z, low, high, **options)
    evaluations = 0
    for _ in range(rounds):
        trial = solver.trial.requires_grad_()
        value = f(trial)
        (gradient,) = torch.autograd.grad(value.sum(), trial)
        solver.tell(value.detach(), gradient)
        evaluations += 1
        if bool(solver.done.all()):
            break
    return solver, evaluations


def rosenbrock(z):
    z = z.flatten(1)
    return (100 * (z[:, 1:] - z[:, :-1] ** 2) ** 2 + (1 - z[:, :-1]) ** 2).sum(1)


def start(*shape):
    return randn(*shape, dtype=torch.float64)


@pytest.mark.slow
def test_the_minimum_of_rosenbrocks_function():
    solver, _ = minimum(rosenbrock, start(4, 2, 3))
    assert solver.value.max() < 1e-10


def test_a_quadratic_in_a_box_has_a_known_minimum():
    """Separable, so that the answer is the clipped one."""
    curvature, centre = torch.linspace(1, 100, 12, dtype=torch.float64), start(3, 12)
    solver, evaluations = minimum(
        lambda z: (curvature * (z - centre) ** 2).sum(1), torch.zeros_like(centre), 100, -0.5, 0.5
    )
    assert torch.allclose(solver.z, centre.clamp(-0.5, 0.5), atol=1e-6)
    assert evaluations < 60


def test_as_low_as_scipy_in_as_many_evaluations():
    z, bounds = 0.5 * start(1, 10), (-0.8, 0.8)

    def numpy_f(v):
        t = torch.tensor(v)[None].requires_grad_()
        value = rosenbrock(t)
        (g,) = torch.autograd.grad(value.sum(), t)
        return value.item(), g[0].numpy()

    theirs = minimize(numpy_f, z[0].numpy(), jac=True, method="L-BFGS-B", bounds=[bounds] * 10)
    solver, _ = minimum(rosenbrock, z, 2 * theirs.nfev, *bounds)
    assert solver.value.item() <= theirs.fun + 1e-3
    assert np.abs(solver.z.numpy()).max() <= 0.8


def recursion(solver, i):
    """The direction of one sample by the two loops of Liu and Nocedal, pair after pair, the newest first."""
    z, g = solver._z[i], solver._g[i]
    free = ~(((z <= solver._low[i]) & (g > 0)) | ((z >= solver._high[i]) & (g < 0)))
    count, memory = int(solver._pairs[i]), len(solver._steps)
    slots = [(count - back) % memory for back in range(1, min(count, memory) + 1)]
    pairs = [(solver._steps[slot, i] * free, solver._changes[slot, i] * free) for slot in slots]
    pairs = [(s, y) for s, y in pairs if s @ y > 0]
    q, weights = g * free, []
    for s, y in pairs:
        weights.append((s @ q) / (s @ y))
        q = q - weights[-1] * y
    s, y = pairs[0]
    r = (s @ y) / (y @ y) * q
    for (s, y), weight in zip(reversed(pairs), reversed(weights), strict=True):
        r = r + (weight - (y @ r) / (s @ y)) * s
    return -r


def test_the_direction_is_that_of_the_recursion():
    for rounds in (3, 8, 30):  # a memory that is empty in part, and one that was overwritten
        solver, _ = minimum(rosenbrock, start(4, 8), rounds, -0.7, 0.7, memory=6)
        directions = solver._direction()
        for i in range(4):
            assert torch.allclose(directions[i], recursion(solver, i), rtol=1e-6)


@pytest.mark.slow
def test_a_batch_finds_what_its_samples_find_alone():
    z = start(5, 6)
    together, _ = minimum(rosenbrock, z, 25, -2.0, 2.0)
    for i in range(5):
        alone, _ = minimum(rosenbrock, z[i : i + 1], 25, -2.0, 2.0)
        assert torch.allclose(together.z[i], alone.z[0], atol=1e-9)


def test_samples_can_leave():
    z = start(3, 6)
    solver = QuasiNewton(z)
    for _ in range(12):
        trial = solver.trial.requires_grad_()
        value = rosenbrock(trial)
        solver.tell(value.detach(), torch.autograd.grad(value.sum(), trial)[0])
    before = solver.trial
    solver.take(torch.tensor([2, 0]))
    assert torch.equal(solver.trial, before[[2, 0]])


def test_not_a_number_is_walked_away_from():
    def f(z):
        return torch.where(z[:, 0] > 0.5, float("nan"), (z[:, 0] - 0.4) ** 2)

    solver, _ = minimum(f, torch.zeros(1, 1, dtype=torch.float64), 40, step_size=5.0)
    assert abs(solver.z.item() - 0.4) < 1e-6
