"""Random operations on images, of which views are made: `(x, generator) -> x'`, with one draw for all images.

The generator is on the CPU, as `views.on_host` returns it; an operation on `[B, C, H, W]` keeps the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.gradients.spectra import image_of, spectrum_of
from underfire.gradients.views import resized_and_padded, uniform, whole

Operation = Callable[[Tensor, Generator | None], Tensor]


def unchanged(x: Tensor, generator: Generator | None) -> Tensor:
    """Return the images."""
    return x


def shift_rows(x: Tensor, generator: Generator | None) -> Tensor:
    """Shift the images up or down; what leaves at one side enters at the other."""
    return x.roll(whole(0, x.shape[2], generator), 2)


def shift_columns(x: Tensor, generator: Generator | None) -> Tensor:
    """Shift the images to a side; what leaves at one side enters at the other."""
    return x.roll(whole(0, x.shape[3], generator), 3)


def flip_rows(x: Tensor, generator: Generator | None) -> Tensor:
    """Turn the images upside down."""
    return x.flip(2)


def flip_columns(x: Tensor, generator: Generator | None) -> Tensor:
    """Mirror the images from left to right."""
    return x.flip(3)


def half_turn(x: Tensor, generator: Generator | None) -> Tensor:
    """Rotate the images by 180 degrees."""
    return x.flip((2, 3))


def darken(x: Tensor, generator: Generator | None) -> Tensor:
    """Multiply the images by a factor in `[0, 1)`."""
    return x * uniform(0, 1, generator)


def add_noise(x: Tensor, generator: Generator | None) -> Tensor:
    """Add uniform noise of at most 16/255, and clip to `[0, 1]`."""
    lot = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return (x + (2 * lot - 1) * (16 / 255)).clamp(0, 1)


def coarsen(x: Tensor, generator: Generator | None) -> Tensor:
    """Resize the images to four fifths of the side, and back."""
    small = [int(side * 0.8) + 1 for side in x.shape[2:]]
    smaller = F.interpolate(x, small, mode="bilinear", align_corners=False)
    return F.interpolate(smaller, x.shape[2:], mode="bilinear", align_corners=False).clamp(0, 1)


def low_pass(x: Tensor, generator: Generator | None) -> Tensor:
    """Remove the highest two fifths of the frequencies in each direction."""
    rows, columns = (side - int(side * 0.4) for side in x.shape[2:])
    kept = spectrum_of(x)[:, :, :rows, :columns]
    return image_of(F.pad(kept, (0, x.shape[3] - columns, 0, x.shape[2] - rows)))


def drop_channels(x: Tensor, generator: Generator | None) -> Tensor:
    """Set each channel of each image to 0 with probability 0.1, and divide the others by 0.9."""
    lot = torch.rand(*x.shape[:2], 1, 1, generator=generator, dtype=x.dtype).to(x.device)
    return x * (lot >= 0.1) / 0.9


def rotated(x: Tensor, degrees: float) -> Tensor:
    """Rotate images anticlockwise around their centre, by bilinear interpolation; outside of an image lies 0."""
    height, width = x.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    theta = x.new_tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    grid = F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotate(degrees: float) -> Operation:
    """Return the rotation by a fixed angle."""
    return lambda x, generator: rotated(x, degrees)


def divide(factor: float) -> Operation:
    """Return the division by a number."""
    return lambda x, generator: x / factor


def diversify(rate: float) -> Operation:
    """Return resizing and padding to `rate` times the side, and scaling back to the size of the image."""

    def operation(x: Tensor, generator: Generator | None) -> Tensor:
        padded = resized_and_padded(x, rate, generator)
        return F.interpolate(padded, x.shape[2:], mode="bilinear", align_corners=False)

    return operation
