"""The defences that change the images, against slow versions and other libraries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire import defenses
from underfire.defenses import Defended
from underfire.errors import InputError, Unsupported
from underfire.model import Classifier
from underfire.transforms import non_local_means


def seen(made: Defended, x: Tensor) -> Tensor:
    """What the classifier behind a defence sees."""
    kept: list[Tensor] = []
    handle = made.undefended.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    made(x)
    handle.remove()
    return kept[0]


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
    padded = seen(made, torch.ones(8, 1, 299, 299))
    assert padded.shape == (8, 1, 331, 331)
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
    ],
)
def test_an_option_out_of_range_gets_one_line(relu_model: Classifier, name: str, options: dict, fact: str) -> None:
    with pytest.raises((InputError, Unsupported), match=fact):
        getattr(defenses, name)(relu_model, **options)
