"""Noise that makes a known share of images wrong, and how far maps move under it."""

import pytest
import torch

from tests.networks import half_space, rand
from underfire.errors import DataError, InputError, Unsupported
from underfire.measures.noise import noise_level, noise_sensitivity, noisy


def test_noise_has_the_scale_and_the_kind():
    x = torch.full((4, 1, 50, 50), 0.5)
    normal, uniform = (noisy(x, 0.1, kind, torch.Generator().manual_seed(0)) - 0.5 for kind in ("normal", "uniform"))
    assert float(normal.std()) == pytest.approx(0.1, rel=0.03)
    assert float(uniform.abs().max()) <= 0.1 and float(uniform.std()) == pytest.approx(0.1 / 3**0.5, rel=0.03)
    assert noisy(x, 5.0).min() == 0 and noisy(x, 5.0).max() == 1


@pytest.mark.parametrize(("share", "quantile"), [(0.03, 1.8808), (0.3, 0.5244)])
def test_the_level_is_that_of_the_closed_form(share, quantile):
    """One pixel, class 1 above a half, every image at 0.6: normal noise is wrong with the probability Φ(-0.1 / σ)."""
    model = half_space(torch.ones(1), -0.5)
    x = torch.full((4000, 1, 1, 1), 0.6)
    level = noise_level(model, x, torch.ones(4000, dtype=torch.int64), share)
    assert level == pytest.approx(0.1 / quantile, rel=0.08)


def test_only_images_that_were_right_count():
    model = half_space(torch.ones(1), -0.5)
    x, y = torch.full((100, 1, 1, 1), 0.6), torch.ones(100, dtype=torch.int64)
    more = torch.cat([x, torch.full((50, 1, 1, 1), 0.1)]), torch.cat([y, y[:50]])
    assert noise_level(model, x, y, 0.3) == noise_level(model, *more, 0.3)


def test_sensitivity_is_the_distance_of_the_maps_and_says_where_the_class_changed():
    model = half_space(torch.tensor([1.0, -1.0, 0.0, 0.0]))
    x = rand(60, 1, 2, 2)
    gap, changed = noise_sensitivity(model, x, lambda model, x, y: x * (1 + y[:, None, None, None]), 0.0)
    assert torch.equal(gap, torch.zeros(60)) and not changed.any()
    gap, changed = noise_sensitivity(model, x, lambda model, x, y: x, 1.0, "uniform")
    assert gap.max() > 0 and changed.any()


def test_bad_input():
    model, x, y = half_space(torch.ones(1), -0.5), torch.full((5, 1, 1, 1), 0.6), torch.ones(5, dtype=torch.int64)
    with pytest.raises(InputError, match="0.03"):
        noise_level(model, x, y, 3.0)
    with pytest.raises(DataError, match="no image"):
        noise_level(model, x, 0 * y, 0.3)
    with pytest.raises(DataError, match="fewer than"):
        noise_level(model, x, y, 0.3, largest=0.05, kind="uniform")
    with pytest.raises(Unsupported, match="kind"):
        noisy(x, 0.1, "pink")
    for scale in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="scale"):
            noisy(x, scale)
