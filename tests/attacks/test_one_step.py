"""FGSM, FGVM, R+FGSM, step-ll: one step, by the formula."""

import pytest
import torch
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand, randn
from underfire.errors import InputError, Unsupported


@pytest.fixture
def case(network):
    model = network("relu", torch.float64)
    x = rand(5, 3, 8, 8, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def entropy_gradient(model, x, classes):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(x), classes, reduction="sum"), x)
    return g


def test_fgsm(case):
    model, x, y = case
    wanted = (x + 0.03 * entropy_gradient(model, x, y).sign()).clamp(0, 1)
    assert torch.allclose(uf.attacks.fgsm(model, x, y, eps=0.03), wanted)
    goal = (y + 1) % 4
    wanted = (x - 0.03 * entropy_gradient(model, x, goal).sign()).clamp(0, 1)
    assert torch.allclose(uf.attacks.fgsm(model, x, y, goal=goal, eps=0.03), wanted)


def test_fgsm_in_l2_steps_along_the_gradient(case):
    model, x, y = case
    g = entropy_gradient(model, x, y)
    wanted = (x + 0.2 * g / g.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)
    assert torch.allclose(uf.attacks.fgsm(model, x, y, norm="l2", eps=0.2), wanted, atol=1e-9)


def test_fgsm_works_where_cross_entropy_is_flat(case):
    model, x, y = case
    with torch.no_grad():
        model.module[-1].weight.mul_(1e5)
    assert (entropy_gradient(model, x, y) == 0).any()
    assert ((uf.attacks.fgsm(model, x, y, eps=0.03) - x).abs().flatten(1).amax(1) > 0.02).all()


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", float("inf"))])
def test_fgvm(case, norm, order):
    model, x, y = case
    g = entropy_gradient(model, x, y)
    length = torch.linalg.vector_norm(g.flatten(1), order, dim=1).reshape(-1, 1, 1, 1)
    wanted = (x + 0.2 * g / length).clamp(0, 1)
    assert torch.allclose(uf.attacks.fgvm(model, x, y, norm=norm, eps=0.2), wanted, atol=1e-9)


def test_fgvm_with_a_mask_spends_eps_inside_it(case):
    model, x, y = case
    x = 0.3 + 0.4 * x
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4] = 1
    x_adv = uf.attacks.fgvm(model, x, y, eps=0.1, mask=mask)
    assert torch.equal(x_adv[..., 4:], x[..., 4:])
    assert torch.allclose((x_adv - x).flatten(1).norm(dim=1), torch.full((5,), 0.1, dtype=torch.float64))


def test_rand_fgsm(case):
    model, x, y = case
    eps, start = 0.05, 0.4
    x_adv = uf.attacks.rand_fgsm(model, x, y, eps=eps, start=start, generator=torch.Generator().manual_seed(3))
    noise = randn(x.shape, seed=3, dtype=torch.float64).sign()
    first = (x + start * eps * noise).clamp(0, 1)
    second = first + (1 - start) * eps * entropy_gradient(model, first, y).sign()
    assert torch.allclose(x_adv, second.clamp(x - eps, x + eps).clamp(0, 1))
    with pytest.raises(InputError, match="start must be a share"):
        uf.attacks.rand_fgsm(model, x, y, start=1.0)


def test_unsupported_norms_are_named(case):
    model, x, y = case
    with pytest.raises(Unsupported, match="'l1' .* l2, linf"):
        uf.attacks.fgvm(model, x, y, norm="l1")


def test_step_ll_steps_towards_the_least_likely_class(case):
    model, x, y = case
    least = model(x).argmin(1)
    wanted = (x - 0.03 * entropy_gradient(model, x, least).sign()).clamp(0, 1)
    assert torch.allclose(uf.attacks.step_ll(model, x, y, eps=0.03), wanted)
    assert torch.equal(uf.attacks.step_ll(model, x, y, eps=0.03), uf.attacks.fgsm(model, x, y, goal=least, eps=0.03))
    other = model(x).argsort(1)[:, 1]  # an image that is labelled as its least likely class must not stay there
    assert torch.equal(uf.attacks.step_ll(model, x, least), uf.attacks.fgsm(model, x, least, goal=other, eps=16 / 255))
