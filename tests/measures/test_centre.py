"""The centre of mass of a map: places computed by hand, and a slow re-implementation of the paper's formula."""

import pytest
import torch

from tests.networks import randn
from underfire.measures.centre import centre_of_mass, importance, map_centre_shift


def test_all_mass_in_one_pixel_is_at_its_middle():
    m = torch.zeros(2, 1, 4, 8)
    m[0, 0, 0, 0], m[1, 0, 3, 7] = 5.0, -2.0
    assert centre_of_mass(m).tolist() == [[0.125, 0.0625], [0.875, 0.9375]]


def test_it_is_the_weighted_mean_of_the_places():
    m = randn(3, 1, 5, 7, dtype=torch.float64)
    for one, found in zip(m[:, 0], centre_of_mass(m), strict=True):
        share = one.abs() / one.abs().sum()
        wanted = [0.0, 0.0]
        for i in range(5):
            for j in range(7):
                wanted[0] += share[i, j].item() * (i + 0.5) / 5
                wanted[1] += share[i, j].item() * (j + 0.5) / 7
        assert found.tolist() == pytest.approx(wanted)
    assert importance(m).sum((1, 2, 3)).tolist() == pytest.approx([1.0] * 3)


def test_the_shift_from_corner_to_corner_is_the_diagonal_between_the_pixels():
    m, n = torch.zeros(2, 1, 1, 4, 3).double()
    m[0, 0, 0, 0] = n[0, 0, 3, 2] = 1.0
    assert map_centre_shift(m, n).item() == pytest.approx((3**2 + 2**2) ** 0.5 / 5)
    # neither the sign, nor the unit, nor the grid of a map counts
    assert map_centre_shift(m, -7 * n.repeat_interleave(2, 2).repeat_interleave(2, 3)).item() == pytest.approx(
        map_centre_shift(m, n).item()
    )


def test_a_constant_map_has_no_shift():
    m = randn(2, 1, 4, 4)
    assert map_centre_shift(m, torch.ones_like(m)).isnan().all()
    assert map_centre_shift(m, m).tolist() == [0.0, 0.0]
