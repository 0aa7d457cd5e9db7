"""A threat that changes the pixels of one region freely: an adversarial patch at a given place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from underfire.ascent.patches import allowance
from underfire.ascent.threat import Threat
from underfire.domains import Domain
from underfire.errors import InputError


@dataclass(frozen=True)
class Patch(Threat):
    """Let the pixels of one region take any value of the box, and no other pixel change.

    Attributes:
        eps: largest share of the image that the region covers, one number or one per sample `[B]`.
        mask: the region, 0 or 1, broadcastable to `[B, C, H, W]`; None is a rectangle, as square as eps allows, in the
            top left corner, as in Subramanya, Pillai and Pirsiavash, Fooling Network Interpretation in Image
            Classification, ICCV 2019.
    """

    norm = "patch"

    def in_domain(self, domain: Domain) -> Self:
        """Return the threat itself, or raise Unsupported unless the domain is images."""
        domain.require_images("norm 'patch'")
        return self

    def largest(self, x: Tensor) -> float:
        """Return 1: the region may be the whole image."""
        return 1.0

    def _too_large(self, eps: float, largest: float) -> str:
        return f"eps {eps:g} is the share of the image that a patch covers; it must be at most 1"

    def check(self, x: Tensor) -> None:
        """Raise InputError unless eps and mask fit the images, and the mask covers at most the share eps."""
        super().check(x)
        if self.mask is None or not len(x):
            return
        if not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise InputError("the mask of a patch must hold zeros and ones only")
        share = self.mask.to(x).expand_as(x).amax(1).flatten(1).mean(1)
        limit = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device)
        if bool((share > limit * (1 + 1e-4) + 1e-6).any()):
            largest = float(share.max())
            raise InputError(f"the mask covers {largest:.3g} of the image; a patch needs eps of at least that share")

    def allowed(self, x: Tensor) -> Tensor:
        """Return the region, 0 or 1 and broadcastable to `x`."""
        if self.mask is not None:
            return self.mask
        rows, columns = x.shape[2:]
        pixels = allowance(x, self.eps)
        height = pixels.sqrt().floor().clamp(max=rows)
        width = (pixels / height.clamp_min(1)).floor().clamp(max=columns)
        inside_rows = torch.arange(rows, device=x.device) < height[:, None]
        inside_columns = torch.arange(columns, device=x.device) < width[:, None]
        return (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(x.dtype)

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Return `z` clipped to the box in the region, and `x` outside it."""
        return self.clip(x, z)

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Return the share of the pixels that changed in any channel, `[B]`."""
        return (x_adv != x).any(1).flatten(1).to(x.dtype).mean(1)

    def _steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return g.sign()

    def _random(self, x: Tensor, allowed: Tensor, generator: Generator | None) -> Tensor:
        draw = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return (draw - x) * allowed
