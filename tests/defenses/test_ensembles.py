"""Defences with several classifiers: votes, and the ensemble of NIPS-r3."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from underfire import defenses
from underfire.errors import InputError, ModelError
from underfire.model import Classifier
from underfire.transforms.affine import linear_maps, resample


class Constant(nn.Module):
    """Answers every image with the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits + 0 * x.flatten(1).sum(1, keepdim=True)


def voting(*answers: tuple[float, ...]) -> defenses.NVersion:
    first, *others = map(Constant, answers)
    return defenses.n_version(first, versions=tuple(others))


def test_the_majority_wins_over_the_mean(images: Tensor) -> None:
    made = voting((1.0, 0, 0), (1.0, 0, 0), (0, 0, 50.0))
    assert made(images).argmax(1).unique().tolist() == [0]
    assert torch.allclose(made(images).exp().sum(1), torch.ones(6))
    tied = voting((1.0, 0, 0), (0, 0, 3.0))
    assert tied(images).argmax(1).unique().tolist() == [2]


def test_no_majority_is_no_decision(images: Tensor) -> None:
    classes, votes = voting((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)).decide(images)
    assert classes.unique().tolist() == [-1] and votes.unique().tolist() == [1]
    made = voting((1.0, 0, 0), (1.0, 0, 0), (0, 0, 1.0))
    assert made.decide(images).classes.unique().tolist() == [0]
    assert made.decide(images, agreeing=3).classes.unique().tolist() == [-1]
    with pytest.raises(InputError, match="from 1 to 3"):
        made.decide(images, agreeing=4)


def test_versions_must_have_the_same_classes(images: Tensor) -> None:
    with pytest.raises(ModelError, match="3, 2"):
        voting((1.0, 0, 0), (0, 1.0))(images)
    named = Classifier(Constant(1.0, 0), labels=("cat", "dog"))
    sized = [Classifier(Constant(1.0, 0), size=size) for size in ((12, 12), (24, 20))]
    with pytest.raises(ModelError, match="24 x 20"):
        defenses.n_version(sized[0], versions=(sized[1],))
    with pytest.raises(ModelError, match="classes"):
        defenses.n_version(named, versions=(Classifier(Constant(1.0, 0), labels=("dog", "cat")),))


def test_the_attack_follows_the_mean_probability(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.n_version(relu_model, versions=(relu_model,))
    z = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(defenses.through(made)(z)[:, 0].sum(), z)
    (wanted,) = torch.autograd.grad(relu_model(z).log_softmax(1)[:, 0].sum(), z)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_resampled_image_is_that_of_scipy(images: Tensor) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images.double()
    cos, sin = math.cos(0.11), math.sin(0.11)
    matrix = linear_maps(*(torch.full((6,), value).double() for value in (cos, -sin, sin, cos)))
    centre, shift = torch.tensor([5.5, 5.5]).double(), torch.tensor([0.3, 0.4]).double()
    offset = centre - matrix[0] @ centre + shift
    found = resample(x, matrix, shift.expand(6, 2), mode="nearest", fill=0.5).flatten(0, 1)
    wanted = [
        ndimage.affine_transform(plane, matrix[0].numpy(), offset.numpy(), order=0, mode="constant", cval=0.5)
        for plane in x.flatten(0, 1).numpy()
    ]
    inside = (slice(None), slice(2, 10), slice(2, 10))  # beyond the last pixel, scipy fills half a pixel earlier
    assert torch.equal(found[inside], torch.from_numpy(np.stack(wanted))[inside])
    identity = linear_maps(*(torch.full((6,), value) for value in (1.0, 0.0, 0.0, 1.0)))
    for mode in ("nearest", "bilinear", "bicubic"):
        assert torch.allclose(resample(images, identity, mode=mode), images, atol=1e-5)


def test_members_see_what_the_submission_shows_them(images: Tensor) -> None:
    networks = [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) for _ in range(4)]
    shown: list[tuple[int, Tensor]] = []
    for number, network in enumerate(networks):
        network.register_forward_pre_hook(lambda _, args, number=number: shown.append((number, args[0])))
    made = defenses.nips_r3(networks[0], versions=tuple(networks[1:]))
    logits = made(images)
    assert [number for number, _ in shown] == [0, 0, 1, 1, 2, 3]
    seen = [x for _, x in shown]
    assert torch.equal(seen[1], seen[3]) and torch.equal(seen[4], seen[5])
    weights = (0.7, 0.1, 0.2, 0.1, 0.1, 0.05)
    wanted = sum(weight * network_of(x) for weight, x in zip(weights, seen, strict=True))
    assert torch.allclose(logits, wanted, atol=1e-5)
    # each distortion is small: it keeps the middle of a smooth image
    smooth = torch.linspace(0.2, 0.8, 60).expand(4, 3, 60, 60)
    shown.clear()
    made(smooth)
    for _, x in shown:
        assert torch.allclose(x[..., 20:40, 20:40], smooth[..., 20:40, 20:40], atol=0.05)


def network_of(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def test_one_network_takes_all_four_places(relu_model: Classifier, images: Tensor) -> None:
    assert defenses.nips_r3(relu_model)(images).shape == (6, 4)
    with pytest.raises(InputError, match="three"):
        defenses.nips_r3(relu_model, versions=(relu_model,) * 4)
