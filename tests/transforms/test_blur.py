"""Blurs against scipy's."""

import pytest
import torch
from scipy import ndimage

from underfire.transforms.blur import blur_matrix, gaussian_blur, median_blur


@pytest.fixture
def x(generator):
    return torch.rand(2, 3, 37, 40, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("sigma", "radius"), [(2.0, 6), (10.0, 5), (0.5, 1)])
def test_gaussian_blur_is_scipys(x, sigma, radius):
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), radius=(0, 0, radius, radius), mode="mirror")
    assert torch.allclose(gaussian_blur(x, sigma, radius), torch.from_numpy(wanted))


def test_a_blur_keeps_what_is_constant_and_never_reaches_past_the_mirror():
    flat = torch.full((1, 1, 4, 9), 0.3)
    assert torch.allclose(gaussian_blur(flat, 10.0), flat)
    assert torch.allclose(blur_matrix(5, 100.0).sum(1), torch.ones(5))


@pytest.mark.parametrize("side", [1, 3, 11])
def test_median_blur_is_scipys(x, side):
    wanted = ndimage.median_filter(x.numpy(), (1, 1, side, side), mode="nearest")
    assert torch.equal(median_blur(x, side), torch.from_numpy(wanted))
