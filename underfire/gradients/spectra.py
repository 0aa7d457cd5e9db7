"""Views in the frequency domain: the cosine transform of an image as two matrix products, and SSM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.gradients.views import View
from underfire.validate import at_least, at_least_one


@lru_cache(maxsize=32)
def cosine_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal matrix `[size, size]` of the discrete cosine transform of type II (DCT)."""
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos((2 * k + 1) * k[:, None] * math.pi / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


def _matrices(x: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = (cosine_matrix(size, x.dtype, x.device) for size in x.shape[2:])
    return rows, columns


def spectrum_of(x: Tensor) -> Tensor:
    """Return the cosine transform of every channel of images `[B, C, H, W]`."""
    rows, columns = _matrices(x)
    return rows @ x @ columns.T


def image_of(spectrum: Tensor) -> Tensor:
    """Return the images whose cosine transform is `spectrum`."""
    rows, columns = _matrices(spectrum)
    return rows.T @ spectrum @ columns


def spectrum_simulation(samples: int = 20, spread: float = 0.5, sigma: float = 16 / 255) -> View:
    """Yield copies with noise, and with each frequency times a random factor in `[1 - spread, 1 + spread]` (SSM).

    The gradient passes through the whole transformation; the authors' code takes it at the transformed image instead.

    Args:
        samples: number of copies, the paper's N.
        spread: the largest change of the factor of a frequency, the paper's rho.
        sigma: standard deviation of the noise, in units of the image.

    Raises:
        InputError: an argument is out of its range.

    Source: Long et al., Frequency Domain Model Augmentation for Adversarial Attack, ECCV 2022.
    """
    at_least_one(samples=samples)
    at_least(0, sigma=sigma)
    if not 0 <= spread <= 1:
        raise InputError(f"spectrum_simulation needs spread in [0, 1], got {spread}")

    def view(x: Tensor, generator: Generator | None = None) -> Iterator[Tensor]:
        spectrum = spectrum_of(x)
        for _ in range(samples):
            # The transform is orthonormal, so that the spectrum of Gaussian noise is Gaussian noise of the same size.
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            lot = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            yield image_of((spectrum + sigma * noise) * (1 + spread * (2 * lot - 1)))

    return view
