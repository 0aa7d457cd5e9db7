"""Paste patches of any shape onto images at random places, angles and sizes, over no more pixels than eps allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.ascent.threats import Threat
from underfire.errors import InputError, Unsupported

Shape = Literal["circle", "square"]


@dataclass(frozen=True)
class Places:
    """Hold the place of a patch on each of `B` images.

    Attributes:
        pixels: largest number of pixels that it covers, int64 `[B]`.
        angle: its rotation, counter-clockwise in radians, `[B]`.
        centre: row and column of its centre, in pixels from the top left corner, `[B, 2]`.
    """

    pixels: Tensor
    angle: Tensor
    centre: Tensor


def allowance(x: Tensor, eps: float | Tensor) -> Tensor:
    """Return how many pixels of each image the share eps allows, rounded down, int64 `[B]`."""
    share = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))
    # Rounding makes 0.29 of 100 pixels 28.999999; the small factor turns it into 29 again.
    return (share * x[0, 0].numel() * (1 + 1e-6)).floor().to(torch.int64)


def shape_mask(shape: Shape | Tensor, pixels: int, like: Tensor) -> Tensor:
    """Return the mask `[h, w]` of a patch that covers `pixels` pixels: 1 inside the shape, 0 outside.

    Args:
        shape: a name, or a mask `[h, w]` of zeros and ones of any resolution, which is returned as it is.
        pixels: the largest number of covered pixels, which decides the resolution of a named shape.
        like: a tensor of the wanted device and dtype.
    """
    if isinstance(shape, Tensor):
        if shape.dim() != 2 or not bool(((shape == 0) | (shape == 1)).all()) or not bool(shape.any()):
            raise InputError(f"the mask of a patch must be [h, w] of zeros and ones, not all zero, got {shape.shape}")
        return shape.to(like)
    if shape not in get_args(Shape):
        raise Unsupported(f"shape {shape!r} is unknown; choices: {', '.join(get_args(Shape))}, or a mask [h, w]")
    if shape == "square":
        side = max(1, math.ceil(math.sqrt(pixels)))
        return torch.ones(side, side, dtype=like.dtype, device=like.device)
    side = max(1, math.ceil(2 * math.sqrt(pixels / math.pi)))
    middle = torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
    return (middle.square()[:, None] + middle.square() <= (side / 2) ** 2).to(like.dtype)


def _half(mask: Tensor, pixels: Tensor) -> Tensor:
    """Return half the height and half the width of a patch that covers `pixels` `[B]`, in image pixels, `[B, 2]`."""
    scale = (pixels / mask.sum()).sqrt()
    return scale[:, None] * mask.new_tensor(mask.shape) / 2


def check_fits(x: Tensor, mask: Tensor, pixels: Tensor) -> None:
    """Raise InputError if a patch that covers `pixels` pixels is higher or wider than the image."""
    height, width = x.shape[2:]
    sides = 2 * _half(mask, pixels.to(mask.dtype))
    largest = sides.amax(0).tolist() if len(sides) else [0.0, 0.0]
    if largest[0] > height + 1e-3 or largest[1] > width + 1e-3:
        share = int(pixels.max()) / (height * width)
        raise InputError(
            f"a patch of this shape that covers {share:.0%} of the image is {largest[0]:.1f} x {largest[1]:.1f} "
            f"pixels, bigger than the image of {height} x {width}; use a smaller eps"
        )


def random_places(
    x: Tensor,
    mask: Tensor,
    pixels: Tensor,
    *,
    rotation: float = 0.0,
    scale: float = 1.0,
    generator: Generator | None = None,
) -> Places:
    """Draw a place on each image such that the unrotated patch lies inside the image.

    Args:
        x: images `[B, C, H, W]`.
        mask: the shape of the patch `[h, w]`.
        pixels: largest number of pixels that it covers, `[B]`.
        rotation: largest angle in either direction, in degrees.
        scale: smallest side of the patch, as a share of its largest.
        generator: source of the places.
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand((len(x), *shape), generator=generator, dtype=x.dtype, device=x.device)

    side = scale + (1 - scale) * draw()
    covered = (pixels * side.square()).floor().to(torch.int64) if scale < 1 else pixels
    half = _half(mask, covered.to(x.dtype))
    room = (x.new_tensor(x.shape[2:]) - 2 * half).clamp_min(0)
    return Places(covered, math.radians(rotation) * (2 * draw() - 1), half + room * draw(2))


def paste(x: Tensor, patch: Tensor, mask: Tensor, places: Places) -> Tensor:
    """Return the images `[B, C, H, W]` with the patch `[C, h, w]` on them, differentiable in the patch.

    No image changes in more than `places.pixels` pixels; if the pixel grid would cover more, the pixels farthest from
    the centre stay as they are.
    """
    height, width = x.shape[2:]
    # coordinates of each image pixel in the rotated patch, from -1 to 1
    half = _half(mask, places.pixels.to(x.dtype)).clamp_min(1e-6)[:, :, None, None]
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) + 0.5 for n in (height, width))
    down = (rows[:, None] - places.centre[:, 0, None, None]).expand(-1, height, width)
    right = (columns - places.centre[:, 1, None, None]).expand(-1, height, width)
    cos, sin = (f(places.angle)[:, None, None] for f in (torch.cos, torch.sin))
    u, v = (cos * right - sin * down) / half[:, 1], (sin * right + cos * down) / half[:, 0]
    grid = torch.stack([u, v], dim=-1)
    # the patch and its mask, read at these coordinates
    shown = torch.cat([patch, mask[None]]).expand(len(x), -1, -1, -1)
    shown = F.grid_sample(shown, grid, padding_mode="border", align_corners=False)
    inside = (u.abs() <= 1) & (v.abs() <= 1) & (shown[:, -1] > 0.5)
    # of the pixels inside, only the `places.pixels` nearest to the centre change
    distance = torch.where(inside, u.square() + v.square(), float("inf")).flatten(1)
    order = distance.argsort(dim=1, stable=True)
    ranks = torch.arange(height * width, device=x.device).expand_as(order)
    allowed = torch.zeros_like(order).scatter_(1, order, ranks).view_as(inside) < places.pixels[:, None, None]
    return torch.where((inside & allowed)[:, None], shown[:, :-1].clamp(0, 1), x)


def apply_patch(
    x: Tensor,
    patch: Tensor,
    mask: Tensor,
    *,
    eps: float | Tensor = 0.05,
    rotation: float = 22.5,
    scale: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Paste the patch `[C, h, w]` onto images `[B, C, H, W]` at random places; eps is the largest covered share.

    Raises:
        InputError: the patch is larger than the image, or patch, mask and image do not match.
    """
    Threat(eps).check(x)
    if patch.dim() != 3 or patch.shape[0] != x.shape[1] or patch.shape[1:] != mask.shape:
        raise InputError(
            f"a patch [{x.shape[1]}, h, w] and its mask [h, w] go with these images, "
            f"got {tuple(patch.shape)} and {tuple(mask.shape)}"
        )
    pixels = allowance(x, eps)
    check_fits(x, mask, pixels)
    places = random_places(x, mask, pixels, rotation=rotation, scale=scale, generator=generator)
    return paste(x, patch.detach(), mask, places)
