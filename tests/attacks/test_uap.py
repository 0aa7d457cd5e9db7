"""Universal perturbations: a direction that is known, and rates on images that were not learned from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

import underfire as uf
from tests.networks import centred_linear
from underfire.ascent.universal import cross_fit_halves
from underfire.attacks import uap
from underfire.attacks.uap import universal_perturbation
from underfire.errors import InputError, Unsupported
from underfire.model import Classifier


def two_classes(w: Tensor) -> nn.Module:
    """Class 1 where the image, less a half, has a positive product with `w`."""
    return centred_linear(torch.stack([-w, w]))


@pytest.mark.parametrize("solver", ["deepfool", "sgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_direction_of_a_linear_model(solver: str, norm: str, generator: Generator) -> None:
    w = torch.randn(1, 3, 6, 5, generator=generator, dtype=torch.float64)
    model = two_classes(w)
    x = 0.3 + 0.4 * torch.rand(80, 3, 6, 5, generator=generator, dtype=torch.float64)
    x = x[model(x).argmax(1) == 0]
    eps = {"linf": 0.02, "l2": 0.2}[norm]
    y = torch.zeros(len(x), dtype=torch.int64)
    v = universal_perturbation(model, x, y, norm=norm, eps=eps, solver=solver, rate=1.0, generator=generator)
    longest = v.abs().amax() * w.abs().sum() if norm == "linf" else v.norm() * w.norm()
    assert (v * w).sum() >= 0.98 * longest
    assert (model(x + v).argmax(1) == 1).all() or (v * w).sum() >= 0.98 * eps * longest / v.norm(p=float(norm[1:]))
    assert uf.measures.perturbation.within(torch.zeros_like(v), v, norm, eps).all()


def test_half_of_a_balanced_batch_is_all_that_one_direction_can_fool(generator: Generator) -> None:
    model = two_classes(torch.ones(1, 1, 4, 4))
    x = (torch.tensor([0.4, 0.6]).repeat(20)[:, None, None, None] + torch.zeros(1, 1, 4, 4)).contiguous()
    y = model(x).argmax(1)
    x_adv = uap(model, x, y, eps=0.2, solver="deepfool", chunk=4, held_out=False, generator=generator)
    assert (model(x_adv).argmax(1) != y).float().mean() == 0.5


def test_each_half_gets_what_the_other_half_was_made_into(generator: Generator) -> None:
    # The classes live on different pixels: what is made from one image says nothing about the other.
    images = torch.full((2, 1, 2, 2), 0.5)
    model = two_classes(torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]))
    images[0, 0, 0, 0], images[1, 0, 1, 1] = 0.4, 0.6
    y = model(images).argmax(1)
    assert y.tolist() == [0, 1]
    held_out = uap(model, images, y, eps=0.2, generator=generator)
    assert (model(held_out).argmax(1) == y).all()  # each was pushed the way that the other needs
    for i in range(2):  # a single image gets its own
        own = uap(model, images[i : i + 1], y[i : i + 1], eps=0.2, generator=generator)
        assert model(own).argmax(1) != y[i]


def test_crosswise_covers_all_and_mixes_nothing(generator: Generator) -> None:
    y = torch.arange(10) % 3
    goal = (y + 1) % 3
    for held_out in (True, False):
        for wanted in (None, goal):
            used_on = []
            for made, used, cls in cross_fit_halves(y, wanted, held_out, generator):
                assert not held_out or not set(made.tolist()) & set(used.tolist())
                if cls is not None:
                    assert (y[made] != cls).all()
                    assert (goal[used] == cls).all()
                used_on += used.tolist()
            assert sorted(used_on) == list(range(10))
    (made, used, _), *more = cross_fit_halves(y[:1], None, True, generator)
    assert not more
    assert made.tolist() == used.tolist() == [0]


def test_every_image_takes_its_own_part(relu_model: Classifier, images: Tensor, generator: Generator) -> None:
    y = relu_model(images).argmax(1)
    eps = torch.tensor([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    x_adv = uap(relu_model, images, y, eps=eps, held_out=False, rate=1.0, generator=generator)
    v = (x_adv - images)[5:]
    for i in range(6):
        assert torch.allclose(x_adv[i] - images[i], v[0].clamp(-eps[i], eps[i]), atol=1e-6)


def test_what_is_not_offered(relu_model: Classifier, images: Tensor) -> None:
    y = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(Unsupported, match="has no goal; use solver='sgd'"):
        uap(relu_model, images, y, goal=y + 1, solver="deepfool")
    with pytest.raises(Unsupported, match="choices: deepfool, sgd"):
        uap(relu_model, images, y, solver="adam")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rate"):
        uap(relu_model, images, y, rate=1.5)


@pytest.mark.slow
def test_held_out_digits_against_noise_of_the_same_size(data_root: Path, generator: Generator) -> None:
    path = data_root / "weights" / "interpretability_aware" / "mnist_small_normal.safetensors"
    model = uf.models.load(f"{path}?arch=mnist_small_normal")
    batch = uf.data.load(f"mnist:{data_root / 'mnist'}")[:120]
    right = model.predict(batch.x).argmax(1) == batch.y
    x, y = batch.x[right], batch.y[right]
    eps = 0.15

    def rate(x_adv: Tensor) -> float:
        return float((model.predict(x_adv).argmax(1) != y).float().mean())

    noise = torch.randn(4, 1, *x.shape[1:], generator=generator).sign()
    by_noise = sum(rate((x + eps * v).clamp(0, 1)) for v in noise) / 4
    deviation = math.sqrt(0.25 * 5 / 4 / len(x))  # at most, of the difference of a share and the mean of four
    for solver, steps in (("deepfool", 1), ("sgd", 6)):
        x_adv = uap(model, x, y, eps=eps, solver=solver, steps=steps, generator=generator)
        assert rate(x_adv) - by_noise > 2.5 * deviation
    goal = torch.full_like(y, 8)
    rows = y != 8
    x_adv = uap(model, x[rows], y[rows], goal=goal[rows], eps=0.3, steps=4, generator=generator)
    assert (model.predict(x_adv).argmax(1) == 8).float().mean() > 0.3
