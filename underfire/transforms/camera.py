"""Simulate printing and photographing an image: a random differentiable transform for expectation over transformation.

Sources: printing and photographing destroys many adversarial images (Kurakin et al., Adversarial Examples in the
Physical World, ICLR Workshops 2017); attacks that differentiate through random transforms survive it (Athalye et al.,
Synthesizing Robust Adversarial Examples, ICML 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.transforms.blur import gaussian_blur_per_sample
from underfire.transforms.jpeg import jpeg

RandomTransform = Callable[[Tensor, Generator | None], Tensor]
_TOE = 0.01  # added to pixels before they are raised to a power, whose slope would else be infinite at black


def camera(
    *,
    rotation: float = 3.0,
    perspective: float = 0.03,
    blur: float = 0.8,
    tone: float = 0.15,
    contrast: float = 0.15,
    brightness: float = 0.08,
    noise: float = 0.015,
    quality: int | None = 75,
) -> RandomTransform:
    """Return a transform `(x, generator) -> x'` that draws parameters for every image, up to the given strengths.

    The transform applies, in this order, the view (rotation and perspective), the lens (blur), the exposure (tone,
    contrast, brightness), the sensor (noise) and the file (JPEG). With all strengths 0 and no JPEG, it is the identity.
    Every call draws new parameters, like another photograph. To measure the success of an attack through a camera,
    classify by `model(transform(x_adv, generator))`.

    Args:
        rotation: largest angle, in degrees.
        perspective: largest shift of each corner, as a share of the sides.
        blur: largest standard deviation of the lens's Gaussian, in pixels.
        tone: pixels are raised to a power, the gamma, between `1 / (1 + tone)` and `1 + tone`.
        contrast: differences to mid-grey are multiplied by a factor between `1 - contrast` and `1 + contrast`.
        brightness: largest shift of all pixels.
        noise: largest standard deviation of the Gaussian noise.
        quality: lowest JPEG quality; the highest is 95, or `quality` if that is larger. None leaves JPEG out.

    Raises:
        InputError: a strength is out of range.
    """
    strengths = {"rotation": rotation, "blur": blur, "tone": tone, "brightness": brightness, "noise": noise}
    for name, value in strengths.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be >= 0 and finite, got {value}")
    for name, value, end in (("perspective", perspective, 0.25), ("contrast", contrast, 1.0)):
        if not 0 <= value < end:
            raise InputError(f"{name} must be in [0, {end:g}), got {value}")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"quality must be from 1 to 100, or None for no JPEG, got {quality}")

    def transform(x: Tensor, generator: Generator | None = None) -> Tensor:
        def draw(*shape: int, low: float = -1.0) -> Tensor:
            """Draw uniform numbers between `low` and 1, `[B, *shape]`."""
            share = torch.rand((len(x), *shape), generator=generator, dtype=x.dtype, device=x.device)
            return low + (1 - low) * share

        if len(x) == 0:
            return x
        # view
        if rotation or perspective:
            x = seen_from(x, math.radians(rotation) * draw(), perspective * draw(4, 2))
        # lens
        if blur:
            x = gaussian_blur_per_sample(x, blur * draw(low=0.0))
        # exposure
        if tone:
            power = (1 + tone) ** draw(1, 1, 1)
            x = ((x + _TOE) ** power - _TOE**power) / ((1 + _TOE) ** power - _TOE**power)
        if contrast:
            x = 0.5 + (1 + contrast * draw(1, 1, 1)) * (x - 0.5)
        if brightness:
            x = x + brightness * draw(1, 1, 1)
        # sensor
        if noise:
            grain = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + noise * draw(1, 1, 1, low=0.0) * grain
        # file
        x = x.clamp(0, 1)
        return x if quality is None else jpeg(x, quality + max(95 - quality, 0) * draw(low=0.0))

    return transform


def seen_from(x: Tensor, angle: Tensor, corners: Tensor) -> Tensor:
    """Rotate images `[B, C, H, W]` and view them in perspective; outside, the border is repeated.

    Args:
        angle: counter-clockwise, in radians, `[B]`.
        corners: by how much the corners of the view are shifted from those of the rotated image, `[B, 4, 2]` (x, y), as
            shares of the sides, in the order top left, top right, bottom left, bottom right.
    """
    height, width = x.shape[2:]
    half = x.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])
    view = x.new_tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, -sin, sin, cos], dim=1).unflatten(1, (2, 2))
    onto = (view * half + 2 * half * corners) @ turn.transpose(1, 2) / half
    matrix = _homography(view, onto)
    rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in (height, width))
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(1, -1, 3) @ matrix.transpose(1, 2)
    grid = (points[..., :2] / points[..., 2:]).unflatten(1, (height, width))
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _homography(source: Tensor, onto: Tensor) -> Tensor:
    """Return the projective maps `[B, 3, 3]` that take four points `[4, 2]` to four others `[B, 4, 2]`."""
    s = torch.cat([source, torch.ones_like(source[:, :1])], dim=1).expand(len(onto), 4, 3)
    zero = torch.zeros_like(s)
    first = torch.cat([s, zero, -onto[..., :1] * s[..., :2]], dim=2)
    second = torch.cat([zero, s, -onto[..., 1:] * s[..., :2]], dim=2)
    right = torch.cat([onto[..., 0], onto[..., 1]], dim=1)
    solved = torch.linalg.solve(torch.cat([first, second], dim=1), right)
    return torch.cat([solved, torch.ones_like(solved[:, :1])], dim=1).unflatten(1, (3, 3))
