"""The defences that change the images, against slow versions and other libraries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire import defenses
from underfire.defenses import Defended
from underfire.defenses.feature_distillation import tuned_table
from underfire.errors import InputError, Unsupported
from underfire.model import Classifier
from underfire.transforms import non_local_means
from underfire.transforms.total_variation import minimise_total_variation, total_variation


def seen(made: Defended, x: Tensor) -> Tensor:
    """What the classifier behind a defence sees, in all its passes."""
    kept: list[Tensor] = []
    handle = made.undefended.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    made(x)
    handle.remove()
    return torch.cat(kept)


def test_bit_depth_and_non_local_means_are_the_transforms(relu_model: Classifier, images: Tensor) -> None:
    assert torch.equal(seen(defenses.bit_depth(relu_model, bits=1), images), (images > 0.5).float())
    made = defenses.non_local_means(relu_model, search=3, template=3, strength=10)
    assert torch.equal(seen(made, images), non_local_means.non_local_means(images, 3, 3, 10.0))


def test_spatial_smoothing_is_that_of_scipy(relu_model: Classifier, images: Tensor) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images.numpy()
    for average, wanted in (
        ("median", ndimage.median_filter(x, size=(1, 1, 3, 3), mode="nearest")),
        ("mean", ndimage.uniform_filter(x, size=(1, 1, 3, 3), mode="nearest")),
        ("gaussian", ndimage.gaussian_filter(x, sigma=0.5, axes=(2, 3), mode="mirror", radius=1)),
    ):
        made = defenses.spatial_smoothing(relu_model, average=average, side=3)
        assert torch.allclose(seen(made, images), torch.from_numpy(wanted), atol=1e-6), average


def test_resizing_and_padding_is_nearest_and_inside(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.resize_and_pad(relu_model, low=1.25, high=1.75, flip=True)
    sizes, mirrored = set(), 0
    for image, padded in zip(images.repeat(10, 1, 1, 1), seen(made, images.repeat(10, 1, 1, 1)), strict=True):
        assert padded.shape == (3, 21, 21)
        # find the rectangle that is not padding, and compare it with a resized image
        rows, columns = (padded.amax((0, axis)).nonzero().flatten() for axis in (2, 1))
        r = len(rows)
        assert len(columns) == r
        sizes.add(r)
        found = padded[:, rows][:, :, columns]
        wanted, flipped = (F.interpolate(z[None], (r, r), mode="nearest")[0] for z in (image, image.flip(2)))
        mirrored += torch.equal(found, flipped)
        assert torch.equal(found, wanted) or torch.equal(found, flipped)
    assert sizes == set(range(15, 21))
    assert 15 <= mirrored <= 45


def test_sizes_of_the_paper() -> None:
    made = defenses.resize_and_pad(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    padded = seen(made, torch.ones(4, 3, 299, 299))
    assert padded.shape == (4, 3, 331, 331)
    sides = (padded[:, 0].amax(2) > 0).sum(1)
    assert int(sides.min()) >= 310 and int(sides.max()) <= 330


@pytest.mark.parametrize(
    ("name", "options", "fact"),
    [
        ("bit_depth", {"bits": 0}, "16"),
        ("jpeg", {"quality": 101}, "101"),
        ("spatial_smoothing", {"side": 1}, "31"),
        ("spatial_smoothing", {"average": "mean", "side": 4}, "odd"),
        ("spatial_smoothing", {"average": "mode"}, "mode"),
        ("non_local_means", {"search": 4}, "odd"),
        ("resize_and_pad", {"low": 0.5}, "0.5"),
        ("feature_distillation", {"benign_step": 0}, "64"),
        ("feature_distillation", {"table": (1.0, 2.0)}, "64"),
        ("total_variation", {"drop": 1.0}, "drop"),
        ("total_variation", {"weight": 0}, "weight"),
        ("crop_ensemble", {"share": 1.5}, "1.5"),
        ("crop_ensemble", {"samples": 0}, "samples"),
        ("nips_r3", {"quality": 0}, "quality"),
        ("n_version", {"versions": ()}, "version"),
        ("n_version", {"versions": ("zoo:no_such_network",)}, "no_such_network"),
        ("n_version", {"versions": 3}, "versions"),
        ("randomised_smoothing", {"sigma": -1}, "sigma"),
    ],
)
def test_an_option_out_of_range_gets_one_line(relu_model: Classifier, name: str, options: dict, fact: str) -> None:
    with pytest.raises((InputError, Unsupported), match=fact):
        getattr(defenses, name)(relu_model, **options)


def test_feature_distillation_is_the_authors_loop(relu_model: Classifier, generator: torch.Generator) -> None:
    fft = pytest.importorskip("scipy.fft")
    x = torch.rand(2, 3, 16, 8, generator=generator)
    steps = np.full((8, 8), 30.0)
    steps[:4, :4] = 25
    wanted = np.zeros(x.shape)
    for place in itertools.product(range(2), range(3), range(2)):
        rows = slice(8 * place[2], 8 * place[2] + 8)
        block = fft.dctn(255 * x.double().numpy()[place[0], place[1], rows], norm="ortho")
        wanted[place[0], place[1], rows] = fft.idctn(np.round(block / steps) * steps, norm="ortho") / 255
    made = defenses.feature_distillation(relu_model)
    assert torch.allclose(seen(made, x), torch.from_numpy(wanted).float().clamp(0, 1), atol=1e-5)
    # another size is padded, and cut again
    assert seen(made, x[..., :13, :5]).shape == (2, 3, 13, 5)


def test_a_table_is_tuned_to_the_frequencies_that_vary(relu_model: Classifier, generator: torch.Generator) -> None:
    line = torch.cos((2 * torch.arange(8) + 1) * 5 * torch.pi / 16)  # frequency 5 from left to right
    x = 0.5 + 0.4 * torch.rand(20, 1, 1, 1, generator=generator) * line.expand(20, 3, 8, 8)
    table = tuned_table(x, benign_step=2, malicious_step=40, benign=1)
    assert [i for i, step in enumerate(table) if step == 2] == [5]
    made = defenses.feature_distillation(relu_model, table=table)
    assert torch.allclose(seen(made, x), x, atol=0.06)  # but for the mean, whose step is 40 / 8 levels
    assert (
        seen(defenses.feature_distillation(relu_model, malicious_step=2000, benign_step=2000), 0.4 * x).abs().max() == 0
    )


def test_total_variation_shrinks_a_step_by_the_closed_form(relu_model: Classifier) -> None:
    # ½ |known · (z - x)|² + weight · TV(z) of an edge is least where each side moves by weight · length / known pixels
    x = torch.full((1, 1, 6, 10), 0.2, dtype=torch.float64)
    x[..., 4:] = 0.8
    for known in (torch.ones_like(x), (torch.arange(60).reshape(x.shape) % 3 > 0).double()):
        z = minimise_total_variation(x, known, 0.05, 600)
        left, right = float(known[..., :4].sum()), float(known[..., 4:].sum())
        assert torch.allclose(z[..., :4], torch.tensor(0.2 + 0.05 * 6 / left).double(), atol=1e-3)
        assert torch.allclose(z[..., 4:], torch.tensor(0.8 - 0.05 * 6 / right).double(), atol=1e-3)


def test_total_variation_is_almost_the_least_after_the_usual_steps(generator: torch.Generator) -> None:
    x = F.avg_pool2d(torch.rand(2, 3, 20, 20, generator=generator, dtype=torch.float64), 5, 1)
    known = (torch.rand(x.shape, generator=generator) > 0.5).double()

    def value(z: Tensor) -> Tensor:
        return (known * (z - x)).square().flatten(1).sum(1) / 2 + 0.03 * total_variation(z)

    least = value(minimise_total_variation(x, known, 0.03, 1000))
    found = value(minimise_total_variation(x, known, 0.03))
    assert torch.all(found < 1.003 * least)
    assert torch.all(value(x) > 1.05 * least)


def test_total_variation_drops_other_pixels_each_time(relu_model: Classifier, images: Tensor) -> None:
    made = defenses.total_variation(relu_model, steps=30)
    assert not torch.equal(seen(made, images), seen(made, images))
    # without dropping, one image of the batch does not influence another
    kept = defenses.total_variation(relu_model, drop=0, steps=30)
    assert torch.allclose(seen(kept, images)[:1], seen(kept, images[:1]), atol=1e-6)


def test_crops_are_squares_of_the_image(images: Tensor) -> None:
    made = defenses.crop_ensemble(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), share=0.5, samples=20)
    x = images[:2].double()
    crops = seen(made, x)
    assert crops.shape == (40, 3, 12, 12)
    possible = F.interpolate(
        x.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2), (12, 12), mode="bilinear"
    )
    found = torch.cdist(crops.flatten(1), possible.flatten(1)).min(1)
    assert float(found.values.max()) < 1e-4
    assert len(found.indices.unique()) > 20
    assert torch.equal(found.indices // 49, torch.arange(2).repeat(20))
    # the answer is the mean probability
    crops = seen(made.redraw(1), x)
    wanted = made.undefended(crops).softmax(1).unflatten(0, (20, 2)).mean(0)
    assert torch.allclose(made.redraw(1)(x).exp(), wanted, atol=1e-6)
