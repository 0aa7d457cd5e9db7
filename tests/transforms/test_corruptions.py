"""Noise, blur, fog and JPEG at the severities of the corruption benchmarks."""

import numpy as np
import pytest
import torch

from tests.networks import rand
from underfire.transforms import corruptions
from underfire.transforms.jpeg import jpeg


def severity(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_noise_has_the_standard_deviation_of_the_benchmark():
    x, grain = torch.full((2, 3, 64, 64), 0.5, dtype=torch.float64), torch.randn(
        2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )  # fmt: skip
    found = corruptions.gaussian_noise(x, severity(1, 2.5), grain) - x
    assert torch.allclose(found[0], 0.04 * grain[0]) and torch.allclose(found[1], 0.07 * grain[1])
    large = corruptions.gaussian_noise(x[:1].repeat(1, 1, 2, 1), severity(1), grain[:1].repeat(1, 1, 2, 1))
    assert torch.allclose(large - 0.5, 0.08 * grain[:1].repeat(1, 1, 2, 1))


def test_blur_is_that_of_scikit_image():
    from skimage.filters import gaussian

    x = rand(1, 1, 20, 24, dtype=torch.float64)
    found = corruptions.blur(x, severity(5))[0, 0]
    expected = gaussian(x[0, 0].numpy(), sigma=1.0, mode="nearest", truncate=3)
    assert np.allclose(found, expected, atol=1e-6)


def test_compression_has_the_quality_of_the_benchmark():
    x = rand(1, 3, 16, 16)
    assert torch.equal(corruptions.compression(x, severity(3)), jpeg(x, 58))


def slow_plasma(size, decay, draw):
    """The diamond-square algorithm for one surface and one decay, point by point."""
    heights, step, level = np.zeros((size, size)), size, 0
    while step >= 2:
        half, weight = step // 2, decay ** (-2 * level)
        places = range(0, size, step)
        share = draw(len(places))
        for i, r in enumerate(places):
            for j, c in enumerate(places):
                corners = [heights[(r + a) % size, (c + b) % size] for a in (0, step) for b in (0, step)]
                heights[r + half, c + half] = np.mean(corners) + weight * share[i, j]
        for dr, dc in ((0, half), (half, 0)):
            share = draw(len(places))
            for i, r in enumerate(places):
                for j, c in enumerate(places):
                    at = r + dr, c + dc
                    beside = [heights[(at[0] + a) % size, (at[1] + b) % size]
                              for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))]  # fmt: skip
                    heights[at] = np.mean(beside) + weight * share[i, j]
        step, level = half, level + 1
    heights -= heights.min()
    return heights / heights.max()


def test_fog_is_the_diamond_square_algorithm():
    x = rand(1, 3, 12, 16, dtype=torch.float64)
    clouds = corruptions.cloud_levels(x, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)

    def draw(n):
        return (2 * torch.rand(1, n, n, generator=again, dtype=torch.float64) - 1)[0].numpy()

    plasma = torch.from_numpy(slow_plasma(16, 2.5, draw))[:12]
    expected = ((x + 0.75 * plasma) * x.max() / (x.max() + 0.75)).clamp(0, 1)
    assert torch.allclose(corruptions.fog(x, severity(3), clouds), expected)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 9)])
def test_every_image_size_has_fog(size):
    x = rand(2, *size)
    found = corruptions.fog(x, severity(0, 5), corruptions.cloud_levels(x, torch.Generator().manual_seed(0)))
    assert found.shape == x.shape and bool(found.isfinite().all()) and torch.allclose(found[0], x[0])
