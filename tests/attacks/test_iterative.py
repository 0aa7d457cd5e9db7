"""BIM, ILLC, PGD, MI-FGSM against slow loops that follow the papers word for word."""

import pytest
import torch
from torch.nn import functional as F

import underfire as uf
from tests.networks import rand
from underfire.ascent.objectives import cross_entropy
from underfire.attacks.bim import paper_steps
from underfire.errors import Unsupported


@pytest.fixture
def case(network):
    model = network("relu", torch.float64)
    x = rand(5, 3, 8, 8, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def entropy_gradient(model, x, classes):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(x), classes, reduction="sum"), x)
    return g


def slow_bim(model, x, classes, eps, steps, size, sign):
    x_t = x
    for _ in range(steps):
        x_t = (x_t + sign * size * entropy_gradient(model, x_t, classes).sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return x_t


@pytest.mark.parametrize(("levels", "steps"), [(1, 2), (2, 3), (4, 5), (8, 10), (16, 20), (32, 36), (0, 1)])
def test_the_papers_number_of_steps(levels, steps):
    """min(eps + 4, 1.25 eps) in grey levels, rounded up."""
    assert paper_steps(levels / 255) == steps
    assert paper_steps(torch.tensor([0.0, levels / 255])).tolist() == [1, steps]


def test_bim(case):
    model, x, y = case
    assert torch.allclose(uf.attacks.bim(model, x, y, eps=8 / 255), slow_bim(model, x, y, 8 / 255, 10, 1 / 255, 1))
    goal = (y + 2) % 4
    fast = uf.attacks.bim(model, x, y, goal=goal, eps=0.05, steps=7, step_size=0.01)
    assert torch.allclose(fast, slow_bim(model, x, goal, 0.05, 7, 0.01, -1))


def test_illc_goes_for_the_least_likely_class(case):
    model, x, y = case
    least = model(x).argmin(1)
    fast = uf.attacks.illc(model, x, y, eps=0.05, steps=7, step_size=0.01)
    assert torch.allclose(fast, slow_bim(model, x, least, 0.05, 7, 0.01, -1))
    # Where the label is itself the least likely class, the next one is the goal.
    second = model(x).topk(2, dim=1, largest=False).indices[:, 1]
    fast = uf.attacks.illc(model, x, least, eps=0.05, steps=7, step_size=0.01)
    assert torch.allclose(fast, slow_bim(model, x, second, 0.05, 7, 0.01, -1))
    with pytest.raises(Unsupported, match="use bim"):
        uf.attacks.illc(model, x, y, goal=(y + 1) % 4)


def test_mi_fgsm(case):
    """Dong et al. 2018, algorithm 1, with mu = 0.8."""
    model, x, y = case
    eps, steps, mu = 0.06, 6, 0.8
    g, x_t = torch.zeros_like(x), x
    for _ in range(steps):
        gradient = entropy_gradient(model, x_t, y)
        g = mu * g + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x_t = (x_t + eps / steps * g.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    assert torch.allclose(uf.attacks.mi_fgsm(model, x, y, eps=eps, steps=steps, decay=mu), x_t)


def test_pgd_linf_is_bim_from_a_clean_start(case):
    model, x, y = case
    options = {
        "eps": 0.05,
        "steps": 9,
        "step_size": 0.01,
        "random_start": False,
        "keep": "last",
        "objective": cross_entropy(),
    }
    assert torch.allclose(uf.attacks.pgd(model, x, y, **options), slow_bim(model, x, y, 0.05, 9, 0.01, 1))


def test_pgd_l2(case):
    """Far from the box, so that projecting is dividing by the norm."""
    model, x, y = case
    x, eps, size = 0.4 + 0.2 * x, 0.2, 0.05
    x_t = x
    for _ in range(9):
        g = entropy_gradient(model, x_t, y)
        shift = x_t + size * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) - x
        x_t = x + shift * (eps / shift.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)).clamp_max(1)
    options = {"norm": "l2", "eps": eps, "steps": 9, "step_size": size, "random_start": False, "keep": "last"}
    assert torch.allclose(uf.attacks.pgd(model, x, y, objective=cross_entropy(), **options), x_t, atol=1e-9)


def test_pgd_only_changes_what_the_mask_allows(case):
    model, x, y = case
    mask = torch.zeros(8, 8, dtype=torch.float64)
    mask[2:5, 3:6] = 1
    changed = uf.attacks.pgd(model, x, y, eps=0.2, mask=mask, generator=torch.Generator().manual_seed(0)) != x
    assert changed.any()
    assert not (changed & (mask == 0)).any()
