"""Noise, blur, fog and JPEG compression at the five severities of the corruption benchmarks, and between them.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR
2019, with the constants of CIFAR-10-C for images of up to 64 pixels a side and of ImageNet-C for larger ones.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from underfire.transforms.blur import gaussian_blur_per_sample
from underfire.transforms.jpeg import jpeg
from underfire.validate import per_sample

_SMALL = 64  # largest side, in pixels, of an image that gets the constants of CIFAR-10-C
# constants of the severities 1 to 5, after that of severity 0: for small images, for large images
_NOISE = (0.0, 0.04, 0.06, 0.08, 0.09, 0.10), (0.0, 0.08, 0.12, 0.18, 0.26, 0.38)
_BLUR = (0.0, 0.4, 0.6, 0.7, 0.8, 1.0), (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
_FOG = (0.0, 0.2, 0.5, 0.75, 1.0, 1.5), (0.0, 1.5, 2.0, 2.5, 2.5, 3.0)
_DECAY = (3.0, 3.0, 3.0, 2.5, 2.0, 1.75), (2.0, 2.0, 2.0, 1.7, 1.5, 1.4)
_QUALITY = (100.0, 80.0, 65.0, 58.0, 50.0, 40.0), (100.0, 25.0, 18.0, 15.0, 10.0, 7.0)


def _constant(severity: Tensor, table: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    """Return the constant of each severity from 0 to 5, linear between two whole ones, `[B]`."""
    values = x.new_tensor(table[max(x.shape[2:]) > _SMALL])
    below = severity.floor().clamp(0, 4).long()
    return torch.lerp(values[below], values[below + 1], (severity - below).to(x))


def gaussian_noise(x: Tensor, severity: Tensor, grain: Tensor) -> Tensor:
    """Add Gaussian noise to images `[B, C, H, W]`.

    Args:
        severity: 0 to 5, one for each image `[B]`.
        grain: standard normal numbers, shaped like `x`.
    """
    return (x + per_sample(_constant(severity, _NOISE, x), x) * grain).clamp(0, 1)


def blur(x: Tensor, severity: Tensor) -> Tensor:
    """Blur images `[B, C, H, W]` by a Gaussian, cut off after three standard deviations; `severity` is as in noise."""
    return gaussian_blur_per_sample(x, _constant(severity, _BLUR, x)).clamp(0, 1)


def compression(x: Tensor, severity: Tensor) -> Tensor:
    """Compress images `[B, C, H, W]` as JPEG and decompress them; `severity` is as in noise."""
    return jpeg(x, _constant(severity, _QUALITY, x))


def fog(x: Tensor, severity: Tensor, clouds: Tensor) -> Tensor:
    """Lay fog over images `[B, C, H, W]`: `(x + a f) max(x) / (max(x) + a)` with a plasma fractal `f` in `[0, 1]`.

    Args:
        severity: 0 to 5, one for each image `[B]`.
        clouds: the levels of the fractals, `[B, L, S, S]`, from `cloud_levels`.
    """
    amount, decay = (per_sample(_constant(severity, table, x), x) for table in (_FOG, _DECAY))
    levels = torch.arange(clouds.shape[1], dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
    # both the height and the range of a level shrink by the decay
    plasma = (clouds * decay ** (-2 * levels)).sum(1, keepdim=True)
    plasma = plasma - plasma.amin((2, 3), keepdim=True)
    plasma = plasma / plasma.amax((2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    brightest = x.amax((1, 2, 3), keepdim=True)
    share = brightest / (brightest + amount).clamp_min(torch.finfo(x.dtype).tiny)
    return ((x + amount * plasma[:, :, : x.shape[2], : x.shape[3]]) * share).clamp(0, 1)


def cloud_levels(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw the levels of a plasma fractal (diamond-square algorithm) for each image `[B, C, H, W]`, `[B, L, S, S]`.

    A level is the surface that its own random heights make; the fractal of a decay is a weighted sum of the levels,
    because the algorithm is linear. `S` is the power of two that is at least as long as both sides, `S = 2^L`. The
    surface continues at its opposite side.
    """
    levels = max(1, (max(x.shape[2:]) - 1).bit_length())
    size = 2**levels
    heights = x.new_zeros(len(x), levels, size, size)
    for level in range(levels):
        step, half = size >> level, size >> (level + 1)

        def drawn(points: Tensor, level: int = level) -> Tensor:
            """Return the means of four neighbours, given as their sums, with new random heights in this level."""
            means = points / 4
            share = torch.rand(means[:, 0].shape, generator=generator, dtype=x.dtype, device=x.device)
            means[:, level] += 2 * share - 1
            return means

        # the middle of every square, from its corners
        corners = heights[:, :, ::step, ::step]
        sides = corners + corners.roll(-1, 2)
        heights[:, :, half::step, half::step] = drawn(sides + sides.roll(-1, 3))
        # the middle of every side, from its ends and the middles of the squares beside it
        middles = heights[:, :, half::step, half::step]
        beside = middles + middles.roll(1, 2) + corners + corners.roll(-1, 3)
        heights[:, :, ::step, half::step] = drawn(beside)
        beside = middles + middles.roll(1, 3) + corners + corners.roll(-1, 2)
        heights[:, :, half::step, ::step] = drawn(beside)
    return heights
