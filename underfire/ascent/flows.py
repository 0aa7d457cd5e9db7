"""Flow fields: every pixel of the warped image is read from a nearby place in the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.ascent.threats import Threat
from underfire.errors import Unsupported


@dataclass(frozen=True)
class Flow(Threat):
    """Warp the image: `z` is a flow field `[B, 2, H, W]` of displacements (down, right) in pixels.

    Attributes:
        eps: largest displacement of a pixel along either axis, in pixels, one number or one per sample `[B]`.
        mask: which pixels of the warped image may be displaced, broadcastable to `[B, C, H, W]`.
    """

    norm = "flow"

    def largest(self, x: Tensor) -> float:
        """Return the longer side of the images, in pixels."""
        return float(max(x.shape[2:]))

    def start(self, x: Tensor) -> Tensor:
        """Return the flow that leaves `x` as it is."""
        return x.new_zeros(len(x), 2, *x.shape[2:])

    def random_start(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw every displacement uniformly between -eps and eps."""
        z = self.start(x)
        uniform = torch.rand(z.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.project(x, (2 * uniform - 1) * self._radius(x))

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the warped image."""
        return warp(x, z)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Clip every displacement to eps."""
        radius = self._radius(x)
        if self.mask is not None:
            radius = radius * self.mask.to(x).expand_as(x)[:, :1]
        return torch.minimum(torch.maximum(z, -radius), radius)

    def steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Return a displacement of one pixel along the sign of the gradient."""
        return g.sign()

    def size(self, x: Tensor, x_adv: Tensor) -> NoReturn:
        """Raise Unsupported: the size `z.abs().amax((1, 2, 3))` cannot be computed from two images."""
        raise Unsupported("the size of a flow cannot be measured on two images")


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Return images whose pixel at `(row, column)` is the pixel of `x` at `(row, column) + flow`, `[B, C, H, W]`.

    The interpolation is bilinear, and the border pixels are repeated outside the image. If the displacement of a pixel
    is zero, the pixel keeps its exact value.
    """
    height, width = x.shape[2:]
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) for n in (height, width))
    v, u = rows[:, None] + flow[:, 0], columns + flow[:, 1]
    grid = torch.stack([2 * u / max(width - 1, 1) - 1, 2 * v / max(height - 1, 1) - 1], dim=-1)
    warped = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True).clamp(0, 1)
    # Interpolation rounds even a pixel that is not displaced: restore its exact value, and keep its gradient with
    # respect to the flow.
    fixed = (flow == 0).all(1, keepdim=True)
    return torch.where(fixed, x + (warped - warped.detach()), warped)


def roughness(flow: Tensor, smoothing: float = 1e-3) -> Tensor:
    """Return the total difference of neighbouring displacements, `[B]`: the flow loss (4) of Xiao et al. (2018).

    It is the sum, over all pixels and their four neighbours, of the Euclidean distance between the two displacements;
    every pair counts twice.

    Args:
        flow: displacements `[B, 2, H, W]` in pixels.
        smoothing: distances far below this become quadratic, because a distance has no gradient at zero.
    """
    total = flow.new_zeros(len(flow))
    for difference in (flow.diff(dim=2), flow.diff(dim=3)):
        distance = (difference.square().sum(1) + smoothing**2).sqrt() - smoothing
        total = total + 2 * distance.flatten(1).sum(1)
    return total
