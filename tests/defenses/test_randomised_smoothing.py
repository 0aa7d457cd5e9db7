"""Randomised smoothing against the closed form of a linear model, and the bounds of its votes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from underfire import defenses
from underfire.defenses import through
from underfire.errors import InputError
from underfire.model import Classifier

SIGMA = 0.5


@pytest.fixture(scope="module")
def linear() -> Classifier:
    """Two classes apart by the hyperplane `w · x = b`, on the side of class 1 if larger."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    weight = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        network.double()[1].weight.copy_(torch.stack([-weight, weight]))
        network[1].bias.copy_(torch.stack([weight.sum(), -weight.sum()]) / 2)
    return Classifier(network)


@pytest.fixture(scope="module")
def points(linear: Classifier) -> tuple[Tensor, Tensor]:
    """Images, and their distances from the hyperplane."""
    x = torch.rand(60, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w, b = linear.module[1].weight[1].detach(), linear.module[1].bias[1].detach()
    return x, (x.flatten(1) @ w + b).abs() / w.norm()


def test_the_radius_of_a_linear_model_is_the_distance(linear: Classifier, points: tuple[Tensor, Tensor]) -> None:
    x, distance = points
    made = defenses.randomised_smoothing(linear, sigma=SIGMA)
    classes, radius = made.certify(x, n=4000, alpha=1e-5)
    certain = classes >= 0
    assert torch.equal(classes[certain], linear(x).argmax(1)[certain])
    # a radius is a lower bound, and a few standard errors of the share of votes below the distance
    p = torch.special.ndtr(distance / SIGMA)
    share = p - 8.5 * (p * (1 - p) / 4000).sqrt()
    lowest = SIGMA * torch.special.ndtri(share.clamp(1e-3, 1 - 2e-3))
    assert torch.all(radius <= distance)
    assert torch.all(radius >= lowest.clamp_min(0))
    assert torch.all(radius[~certain] == 0) and torch.all(distance[~certain] < 0.1)
    # so is the curve of the certified accuracy
    for r in (0.0, 0.1, 0.2, 0.4):
        found = (radius > r).double().mean()
        assert (lowest > r).double().mean() <= found <= (distance > r).double().mean()


def test_no_radius_is_too_large_more_often_than_stated(linear: Classifier) -> None:
    w = linear.module[1].weight[1].detach()
    x = (0.5 + 0.2 * w / w.norm()).reshape(1, 3, 2, 2).repeat(400, 1, 1, 1)  # all at distance 0.2
    radius = defenses.randomised_smoothing(linear, sigma=SIGMA).certify(x, n0=20, n=100, alpha=0.1).radius
    wrong = int((radius > 0.2).sum())
    assert 0 < wrong < 65  # 40 are allowed on average, and a standard deviation is 6


def test_the_class_is_certain_only_far_from_the_boundary(linear: Classifier, points: tuple[Tensor, Tensor]) -> None:
    x, distance = points
    made = defenses.randomised_smoothing(linear, sigma=SIGMA)
    classes = made.decide(x, n=400)
    assert torch.equal(classes[classes >= 0], linear(x).argmax(1)[classes >= 0])
    assert torch.all(classes[distance > 0.3] >= 0)
    w = linear.module[1].weight[1].detach()
    on_it = torch.full((3, 3, 2, 2), 0.5, dtype=torch.float64) + 0 * w.sum()
    assert made.decide(on_it, n=400).tolist() == [-1, -1, -1]


def test_the_logits_are_the_share_of_votes(linear: Classifier, points: tuple[Tensor, Tensor]) -> None:
    x, distance = points
    made = defenses.randomised_smoothing(linear, sigma=SIGMA, samples=2000, chunk=700)
    share = made(x).exp().amax(1)
    assert torch.allclose(share, torch.special.ndtr(distance / SIGMA), atol=0.05)


def test_the_attack_follows_the_mean_probability(linear: Classifier, points: tuple[Tensor, Tensor]) -> None:
    x = points[0][:3]
    made = defenses.randomised_smoothing(linear, sigma=SIGMA)
    form = through(made, samples=5)
    generator = torch.Generator().manual_seed(form.module.seed)
    drawn = [SIGMA * torch.randn(x.shape, generator=generator, dtype=x.dtype) for _ in range(5)]
    wanted = torch.stack([linear(x + noise).softmax(1) for noise in drawn]).mean(0)
    assert torch.allclose(form(x).exp(), wanted, atol=1e-10)


def test_the_mode_of_the_model_does_not_matter(linear: Classifier, points: tuple[Tensor, Tensor]) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), linear.module).double().train()
    made = defenses.randomised_smoothing(network)
    made.certify(points[0], n=50)
    assert network.training and torch.equal(network[0].running_mean, torch.zeros(3).double())


@pytest.mark.parametrize("options", [{"n": 0}, {"n0": 0}, {"alpha": 0}, {"alpha": 0.5}])
def test_wrong_numbers_get_one_line(linear: Classifier, points: tuple[Tensor, Tensor], options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        defenses.randomised_smoothing(linear).certify(points[0], **options)
