"""Flow fields: every pixel of the new image is read from a place nearby in the old one."""

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
    """The image is warped: `z` is a flow field `[B, 2, H, W]` of displacements (down, right) in pixels.

    Attributes:
        eps: the largest displacement of a pixel along either axis, in pixels, one number or one per sample `[B]`.
        mask: which pixels of the new image may be read from elsewhere, broadcastable to `[B, C, H, W]`.
    """

    norm = "flow"

    def start(self, x: Tensor) -> Tensor:
        """The flow that leaves `x` as it is."""
        return x.new_zeros(len(x), 2, *x.shape[2:])

    def random_start(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Every displacement uniformly at random."""
        z = self.start(x)
        share = torch.rand(z.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.project(x, (2 * share - 1) * self._radius(x))

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """The warped image."""
        return warp(x, z)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """The flow with every displacement cut off at eps."""
        radius = self._radius(x)
        if self.mask is not None:
            radius = radius * self.mask.to(x).expand_as(x)[:, :1]
        return torch.minimum(torch.maximum(z, -radius), radius)

    def steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Every displacement by one pixel."""
        return g.sign()

    def size(self, x: Tensor, x_adv: Tensor) -> NoReturn:
        """Not to be had from two images: it is `z.abs().amax((1, 2, 3))`."""
        raise Unsupported("the size of a flow cannot be measured on two images")


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Images `[B, C, H, W]` read at `(row, column) + flow` by bilinear interpolation; the border goes on outside.

    Where the flow is zero, the pixel stays as it is to the last bit.
    """
    height, width = x.shape[2:]
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) for n in (height, width))
    v, u = rows[:, None] + flow[:, 0], columns + flow[:, 1]
    grid = torch.stack([2 * u / max(width - 1, 1) - 1, 2 * v / max(height - 1, 1) - 1], dim=-1)
    seen = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True).clamp(0, 1)
    # Through the coordinates a pixel comes back rounded; its value is put right, its gradient by the flow is kept.
    still = (flow == 0).all(1, keepdim=True)
    return torch.where(still, x + (seen - seen.detach()), seen)


def roughness(flow: Tensor, smoothing: float = 1e-3) -> Tensor:
    """How much neighbouring displacements differ, `[B]`: the flow loss of Xiao et al. (2018), (4).

    The sum over all pixels and their four neighbours of the Euclidean distance of the two displacements, which counts
    every pair twice.

    Args:
        flow: displacements `[B, 2, H, W]` in pixels.
        smoothing: differences far below this are squared rather than measured, since a distance has no slope at zero.
    """
    total = flow.new_zeros(len(flow))
    for difference in (flow.diff(dim=2), flow.diff(dim=3)):
        distance = (difference.square().sum(1) + smoothing**2).sqrt() - smoothing
        total = total + 2 * distance.flatten(1).sum(1)
    return total
