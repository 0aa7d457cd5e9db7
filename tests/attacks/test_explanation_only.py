"""Attacks that change the explanation: all corners of the cube, the papers' loops written slowly, and real images."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

import underfire as uf
from tests.networks import build_network, rand
from underfire.ascent.map_objectives import imitate, leave_top, move_centre
from underfire.ascent.moves import adam
from underfire.ascent.step import Targets
from underfire.attacks import explanation_and_prediction, explanation_only, random_noise
from underfire.errors import InputError, Unsupported
from underfire.measures.centre import centre_of_mass
from underfire.model import Classifier

GRADIENT = partial(uf.interpreters.gradient, double_backward="exact")


class Quadratic(nn.Module):
    """Two logits: 0, and `sum a x^2 / 2` plus a constant that makes it the larger one. The gradient is `a x`."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        own = 0.5 * (self.a * x.square()).flatten(1).sum(1) + 1
        return torch.stack([torch.zeros_like(own), own], 1)


@pytest.fixture(scope="module")
def quadratic():
    """The network, three images of one row of nine pixels, and all corners of the cube of radius 0.1 around each."""
    model = Classifier(Quadratic(0.5 + rand(1, 1, 1, 9, dtype=torch.float64)))
    x = 0.3 + 0.4 * rand(3, 1, 1, 9, seed=1, dtype=torch.float64)
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=9)), dtype=torch.float64).view(-1, 1, 1, 1, 9)
    return model, x, x + 0.1 * signs


@pytest.mark.parametrize(("loss", "make"), [("top_k", leave_top), ("mass_centre", move_centre)])
def test_the_result_is_the_best_corner_of_the_cube(quadratic, loss, make):
    """Both losses are ratios of functions linear in the image, whose largest value is at a corner.

    The centre has a largest shift on each side; the attack takes the side with more room.
    """
    model, x, corners = quadratic
    benign = (model.module.a * x).abs()
    term = make(lambda model, x, y: (model.module.a * x).abs(), benign)

    def value(points):
        index = torch.arange(3).repeat(len(points) // 3)
        return term(Targets(torch.ones_like(index), None, index).step(model, points, model(points)))

    # where the centre has moved to the side on which it is farther from the border
    start, now = (centre_of_mass(model.module.a * z)[:, 1].view(-1, 3) for z in (x, corners.flatten(0, 1)))
    sought = ((now > start) == (start < 0.5)) | (loss == "top_k")
    best = value(corners.flatten(0, 1)).view(-1, 3).where(sought, -torch.inf).amax(0)
    x_adv = explanation_only(
        model, x, torch.ones(3).long(), interpreter=GRADIENT, objective=loss, eps=0.1, steps=40, output_weight=0
    )
    assert value(x_adv).tolist() == pytest.approx(best.tolist(), abs=1e-9)


def slowly(model, x, loss, eps, alpha, steps, k):
    """Algorithm 1 of Ghorbani et al. for one image: signed steps, and the best iterate of the same prediction."""
    own = model(x).argmax(1)

    def share(z):
        (g,) = torch.autograd.grad(model(z)[0, own].sum(), z, create_graph=True)
        m = g.abs().amax(1)[0]
        return m / m.sum()

    def centre(m):
        rows, columns = ((torch.arange(n, dtype=m.dtype) + 0.5) / n for n in m.shape)
        return torch.stack([(m.sum(1) * rows).sum(), (m.sum(0) * columns).sum()])

    start = share(x.clone().requires_grad_(True)).detach()
    top, before = start.flatten().topk(k).indices, centre(start)

    def dissimilarity(z):
        m = share(z)
        if loss == "top_k":
            return -m.flatten()[top].sum()
        shift = centre(m) - before
        away = torch.tensor([float(c < 0.5) for c in before], dtype=x.dtype) - before
        return shift.norm() if shift.norm() > 1e-9 else (shift * away / away.norm()).sum()

    z, best, top_value = x.clone(), x.clone(), dissimilarity(x.clone().requires_grad_(True)).item()
    for _ in range(steps):
        z = z.requires_grad_(True)
        (g,) = torch.autograd.grad(dissimilarity(z), z)
        z = (x + (z.detach() + alpha * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
        value = dissimilarity(z.clone().requires_grad_(True)).item()
        if model(z).argmax(1) == own and value > top_value:
            best, top_value = z.clone(), value
    return best


@pytest.mark.parametrize("loss", ["top_k", "mass_centre"])
def test_it_is_the_algorithm_of_ghorbani(loss):
    model = build_network("smooth", torch.float64)
    x = rand(3, 3, 8, 8, dtype=torch.float64)
    x_adv = explanation_only(
        model, x, model(x).argmax(1), interpreter=GRADIENT, objective=loss, quantile=0.875, eps=0.1, steps=12,
        step_size=0.02, output_weight=0,
    )  # fmt: skip
    wanted = torch.cat([slowly(model, one[None], loss, 0.1, 0.02, 12, 8) for one in x])
    assert torch.allclose(x_adv, wanted, atol=1e-9)
    assert not torch.equal(x_adv, x)


def test_it_is_the_descent_of_dombrowski():
    """The weights 1e11 and 1e6 of the paper, for its means over classes and its maps with the sum 1."""
    model = build_network("smooth", torch.float64)
    x, other = rand(2, 1, 3, 8, 8, dtype=torch.float64)
    classes = model(x).argmax(1)

    def share(z):
        (g,) = torch.autograd.grad(model(z)[0, classes].sum(), z, create_graph=True)
        m = g.abs().amax(1, keepdim=True)
        return m / m.sum()

    target, before = share(other.requires_grad_(True)).detach(), model(x).softmax(1).detach()
    z, pixels, count, seen = x.clone(), 64, 4, []
    first = second = torch.zeros_like(x)
    for t in range(1, 17):
        z = z.requires_grad_(True)
        map_loss, output_loss = (share(z) - target).square().mean(), (model(z).softmax(1) - before).square().mean()
        if model(z).argmax(1) == classes:
            seen.append((map_loss.item(), z.detach()))
        (g,) = torch.autograd.grad(1e11 * map_loss + 1e6 * output_loss, z)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g.square()
        step = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        z = (z.detach() - 0.004 * step).clamp(0, 1)
    x_adv = explanation_only(
        model, x, classes, interpreter=GRADIENT, objective="target_map", target=target, eps=1.0, steps=15,
        step_size=0.004, move=adam(), output_weight=(1e6 / count) / (1e11 / pixels**2),
    )  # fmt: skip
    assert len(seen) > 2
    assert torch.allclose(x_adv, min(seen, key=lambda one: one[0])[1], atol=1e-6)


@pytest.mark.parametrize("make", [leave_top, move_centre, imitate])
def test_the_objectives_do_not_depend_on_the_unit_or_sign_of_a_map(make):
    m, n = rand(2, 2, 1, 5, 5, dtype=torch.float64) - 0.3
    step = Targets(torch.zeros(2).long(), None, torch.arange(2)).step(nn.Identity(), m, torch.zeros(2, 3))
    assert torch.allclose(make(lambda *_: n, m)(step), make(lambda *_: -7 * n, m)(step))


def test_the_centre_and_the_top_of_a_map_that_moved_by_hand():
    m, n = torch.zeros(2, 1, 1, 4, 4)
    m[0, 0, 0, 0], n[0, 0, 3, 3], n[0, 0, 0, 0] = 1.0, 3.0, 1.0
    step = Targets(torch.zeros(1).long(), None, torch.arange(1)).step(nn.Identity(), m, torch.zeros(1, 3))
    assert leave_top(lambda *_: n, m)(step).item() == pytest.approx(-0.25)
    assert move_centre(lambda *_: n, m)(step).item() == pytest.approx(0.75 * (0.75**2 + 0.75**2) ** 0.5)
    assert imitate(lambda *_: n, m)(step).item() == pytest.approx(-16 * 2 * 0.75**2)


@pytest.mark.slow
def test_both_change_on_a_network_with_kinks():
    model, x = build_network("relu"), rand(8, 3, 12, 12)
    y = model(x).argmax(1)
    gradient, eps = uf.interpreters.gradient, 0.1
    both = explanation_and_prediction(model, x, y, interpreter=gradient, eps=eps, steps=20)
    plain = uf.attacks.pgd(model, x, y, eps=eps, steps=40, random_start=False)
    before = gradient(model, x, y)
    fooled = (model(both).argmax(1) != y) & (model(plain).argmax(1) != y)
    assert fooled.sum() >= 6
    overlap = [
        uf.measures.map_top_overlap(before, gradient(model, x_adv, model(x_adv).argmax(1)))[fooled].mean()
        for x_adv in (both, plain)
    ]
    assert overlap[0] < 0.6 * overlap[1]


@pytest.mark.slow
def test_the_top_pixels_of_photographs_change_and_the_classes_stay(data_root):
    """Real images, because the effect is one of real networks: 0.39 of the top pixels stay under noise, hardly any
    under the attack (eight images, 60 steps)."""
    model = uf.models.load(f"{data_root / 'weights' / 'resnet20_cifar10.safetensors'}?arch=resnet20_cifar10")
    batch = uf.data.load(f"parquet:{data_root / 'cifar10-test.parquet'}", n=4)[:]
    x, y, eps, gradient = batch.x, batch.y, 4 / 255, uf.interpreters.gradient
    before, own = gradient(model, x, model(x).argmax(1)), model(x).argmax(1)
    overlap = {}
    for name, x_adv in {
        "attack": explanation_only(model, x, y, interpreter=gradient, eps=eps, steps=15),
        "noise": random_noise(model, x, y, eps=eps),
    }.items():
        now = model(x_adv).argmax(1)
        overlap[name] = uf.measures.map_top_overlap(before, gradient(model, x_adv, now)).mean()
        assert name == "noise" or torch.equal(now, own)
    assert overlap["attack"] < 0.3 * overlap["noise"]


def test_noise_has_exactly_the_size_that_was_asked_for():
    model, x = build_network(), 0.4 + 0.2 * rand(3, 3, 6, 6)
    y, eps = model(x).argmax(1), torch.tensor([0.0, 0.05, 0.1])
    for norm, size in (("linf", uf.measures.linf), ("l2", uf.measures.l2)):
        assert torch.allclose(size(x, random_noise(model, x, y, norm=norm, eps=eps)), eps, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"objective": "top"}, Unsupported, "top_k"),
        ({"objective": "target_map"}, InputError, "needs target"),
        ({"target": torch.zeros(2, 1, 4, 4)}, InputError, "takes no target"),
        ({"objective": "target_map", "target": torch.zeros(2, 1, 6, 6)}, InputError, "one value everywhere"),
        ({"objective": "target_map", "target": torch.zeros(2, 1, 4, 4)}, InputError, "resize=True"),
        ({"objective": "target_map", "target": torch.zeros(3, 1, 4, 4)}, InputError, r"\[2, 1, h, w\]"),
        ({"interpreter": lambda model, x, y: x.detach().mean(1, keepdim=True)}, Unsupported, "not differentiable"),
        ({"output_weight": -1.0}, InputError, "output_weight"),
    ],
)
def test_bad_settings_are_named(options, error, named):
    model, x = build_network(), rand(2, 3, 12, 12)
    given = {"interpreter": uf.interpreters.cam, "steps": 1} | options
    with pytest.raises(error, match=named):
        explanation_only(model, x, model(x).argmax(1), **given)
