"""Squeezers: rounding, medians and non-local means, against scipy, OpenCV and loops."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from tests.networks import rand
from underfire.errors import InputError, Unsupported
from underfire.transforms.blur import median_blur
from underfire.transforms.lab import from_lab, to_lab
from underfire.transforms.non_local_means import non_local_means
from underfire.transforms.squeezing import BIT_DEPTHS, JOINT, MEDIANS, NON_LOCAL_MEANS, bit_depth, squeezer, squeezers


def natural(n=2, channels=1, side=20):
    """Smooth images with a little noise, in eight bits."""
    coarse = torch.nn.functional.interpolate(rand(n, channels, 4, 4, seed=1), size=side, mode="bilinear")
    return ((coarse + 0.02 * rand(n, channels, side, side, seed=2)).clamp(0, 1) * 255).round() / 255


def test_bit_depth_rounds_to_levels_with_the_gradient_of_the_identity():
    x = rand(2, 3, 4, 4).requires_grad_()
    for bits in (1, 3, 5):
        squeezed = bit_depth(x, bits)
        wanted = np.rint(x.detach().numpy() * (2**bits - 1)) / (2**bits - 1)
        assert np.allclose(squeezed.detach().numpy(), wanted, atol=1e-7)
        (slope,) = torch.autograd.grad(squeezed.sum(), x)
        assert torch.allclose(slope, torch.ones_like(x))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_median_is_that_of_scipy_also_for_even_squares(side):
    x = rand(2, 3, 7, 9)
    wanted = median_filter(x.numpy(), size=(1, 1, side, side), mode="reflect")
    assert np.array_equal(median_blur(x, side).numpy(), wanted)
    assert median_blur(x[:0], side).shape == (0, 3, 7, 9)


def test_the_gradient_of_a_median_is_that_of_the_pixel_that_it_takes():
    x = rand(1, 1, 5, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: median_blur(z, 2), x)


def slow_non_local_means(levels, search, template, strength):
    """One channel, pixel by pixel, in whole numbers as OpenCV computes them."""
    reach, half = search // 2, template // 2
    extended = np.pad(levels, reach + half, mode="reflect").astype(int)
    unit = (2**31 - 1) // (search * search * 255)
    shift = math.ceil(math.log2(template * template))
    result = np.empty_like(levels)
    for i in range(levels.shape[0]):
        for j in range(levels.shape[1]):
            top, left = i + reach, j + reach
            here = extended[top : top + template, left : left + template]
            total = weights = 0
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    there = extended[top + down : top + down + template, left + right : left + right + template]
                    almost = int(((here - there) ** 2).sum()) >> shift
                    w = round(unit * math.exp(-almost * 2**shift / template**2 / strength**2))
                    w = 0 if w < 0.001 * unit else w
                    total, weights = total + w * int(there[half, half]), weights + w
            result[i, j] = (total + weights // 2) // weights
    return result


def test_non_local_means_is_the_slow_one_word_for_word():
    x = natural(1, side=10)
    for strength in (2, 10):
        wanted = slow_non_local_means((x[0, 0] * 255).round().int().numpy(), 5, 3, strength)
        found = (255 * non_local_means(x, 5, 3, strength)[0, 0]).round().int().numpy()
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("search", "template", "strength"), [(11, 3, 4), (13, 3, 2)])
def test_non_local_means_is_that_of_opencv(search, template, strength):
    cv2 = pytest.importorskip("cv2")
    for channels in (1, 3):
        x = natural(2, channels)
        found = (255 * non_local_means(x, search, template, strength)).round().numpy()
        for image, mine in zip((x * 255).round().byte().numpy(), found, strict=True):
            if channels == 1:
                wanted = cv2.fastNlMeansDenoising(image[0], None, strength, template, search)
                assert np.array_equal(mine[0], wanted)
            else:
                bgr = np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
                wanted = cv2.fastNlMeansDenoisingColored(bgr, None, strength, strength, template, search)
                gap = np.abs(mine - wanted[..., ::-1].transpose(2, 0, 1))
                assert gap.mean() < 0.3 and gap.max() <= 6  # its tables of Lab round once more


def test_lab_comes_back():
    x = rand(2, 3, 8, 8, dtype=torch.float64)
    x[..., 0] = 0.001  # the linear part of the curve
    assert torch.allclose(from_lab(to_lab(x)), x, atol=3e-3)
    white = to_lab(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten()
    assert torch.allclose(white, torch.tensor([255.0, 128, 128], dtype=torch.float64), atol=0.3)


def test_non_local_means_has_the_gradient_of_the_mean_without_rounding():
    x = natural(1, 3, 9).double().requires_grad_()
    direction = rand(1, 3, 9, 9, seed=5, dtype=torch.float64) - 0.5
    (slope,) = torch.autograd.grad((non_local_means(x, 3, 3, 20) * direction).sum(), x)
    assert torch.isfinite(slope).all()
    # rounding makes small differences useless: compare along a long step
    with torch.no_grad():
        step = 0.1 * direction
        ends = [(non_local_means((x + s * step).clamp(0, 1), 3, 3, 20) * direction).sum() for s in (1, -1)]
    assert float((slope * step).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2, rel=0.1)


def test_squeezers_by_name():
    x = natural(2, 3)
    for name in (*BIT_DEPTHS, *MEDIANS, *NON_LOCAL_MEANS[:1]):
        assert squeezer(name)(x).shape == x.shape
    assert list(squeezers("cifar10")) == list(JOINT["cifar10"]) and list(squeezers("median_2")) == ["median_2"]


@pytest.mark.parametrize("name", ["median", "median_0", "bit_depth_17", "non_local_means_12_3_2", "median_2_2"])
def test_an_unknown_squeezer_is_refused(name):
    with pytest.raises(InputError, match=name):
        squeezer(name)


def test_lists_of_squeezers_must_make_sense():
    for wrong in (5, (5,), None, ["median_2", 3]):
        with pytest.raises(InputError, match="names"):
            squeezers(wrong)
    for names in ([], ["median_2", "median_2"]):
        with pytest.raises(InputError, match="none twice"):
            squeezers(names)


def test_images_that_non_local_means_cannot_take():
    with pytest.raises(InputError, match="at least 8"):
        non_local_means(rand(1, 1, 6, 9), 13, 3, 4)
    with pytest.raises(Unsupported, match="three channels"):
        non_local_means(rand(1, 2, 9, 9), 3, 3, 4)
