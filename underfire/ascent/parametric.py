"""Threats with few parameters: warps and changes of brightness and contrast; `z` holds the parameters `[B, P]`.

Every entry of `z` is a share of its parameter's range: 0 leaves the image exactly unchanged, and 1 and -1 are the ends
of the range. Entries lie between `-eps` and `eps`, or in one half of that interval if the range has only one side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.ascent.threats import Threat
from underfire.domains import Domain
from underfire.errors import InputError, Unsupported
from underfire.validate import per_sample


@dataclass(frozen=True)
class ParametricThreat(Threat):
    """A threat that changes the whole image by a few parameters; for images only.

    Attributes:
        eps: largest share of the ranges, one number or one per sample `[B]`.
        mask: must be None; the whole image changes.
    """

    parameters: ClassVar[tuple[str, ...]] = ()

    def in_domain(self, domain: Domain) -> Self:
        """Return the threat itself, or raise Unsupported unless the domain is images."""
        domain.require_images(f"norm {self.norm!r}")
        return self

    def largest(self, x: Tensor) -> float:
        """Return 1: eps is a share of the stated ranges."""
        return 1.0

    def _too_large(self, eps: float, largest: float) -> str:
        return f"eps {eps:g} is a share of the stated ranges; it must be at most 1"

    def ends(self) -> list[tuple[float, float]]:
        """Return the lowest and highest share of each parameter at `eps = 1`; a side that its range lacks is 0."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise InputError unless eps fits the images, and Unsupported where there is a mask."""
        super().check(x)
        if self.mask is not None:
            raise Unsupported(f"a mask does not go with norm {self.norm!r}, which changes the whole image")

    def start(self, x: Tensor) -> Tensor:
        """Return the `z` that stands for `x` unchanged, `[B, P]`."""
        return x.new_zeros(len(x), len(self.parameters))

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest `z`, each `[B or 1, P]`."""
        low, high = x.new_tensor(self.ends()).unbind(1)
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1, 1)
        return eps * low, eps * high

    def random_start(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw a uniformly random `z` for every image, `[B, P]`."""
        return self.draws(x, 1, generator)[:, 0]

    def draws(self, x: Tensor, count: int, generator: Generator | None = None) -> Tensor:
        """Draw `count` uniformly random `z` for every image, `[B, count, P]`."""
        low, high = (bound[:, None] for bound in self.bounds(x))
        shape = (len(x), count, len(self.parameters))
        share = torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
        return self._settled(low + (high - low) * share, high)

    def grid(self, x: Tensor, points: Mapping[str, int]) -> Tensor:
        """Return all combinations of evenly spaced values, the smallest change first, `[B or 1, count, P]`.

        Args:
            x: the images.
            points: how many values each parameter takes from end to end; one that is not named stays at 0.
        """
        lines = []
        for name, (low, high) in zip(self.parameters, self.ends(), strict=True):
            count = points.get(name, 1) if low < high else 1
            places = torch.arange(count, dtype=x.dtype) / max(count - 1, 1)
            lines.append(low + (high - low) * places if count > 1 else 0 * places)
        shares = torch.cartesian_prod(*lines)
        shares = shares[shares.abs().amax(1).sort(stable=True).indices].to(x.device)
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
        return self._settled(eps * shares, self.bounds(x)[1][:, None])

    def project(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the nearest allowed `z`, `[B, P]`."""
        low, high = self.bounds(x)
        return self._settled(torch.minimum(torch.maximum(z, low), high), high)

    def steepest(self, g: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Return the sign of the slope for every parameter, `[B, P]`."""
        return g.sign()

    def switched(self, z: Tensor) -> list[Tensor]:
        """Return a copy of `z` for every combination of the on-off parameters, which have no gradient."""
        return [z]

    def size(self, x: Tensor, x_adv: Tensor) -> NoReturn:
        """Raise Unsupported: the size of a change is `z.abs().amax(1)`, which cannot be measured on two images."""
        raise Unsupported(f"the size of a change of norm {self.norm!r} cannot be measured on two images")

    def _settled(self, z: Tensor, high: Tensor) -> Tensor:
        """Round the on-off parameters of `z` to on (the upper bound `high`) or off (0)."""
        return z


def _between(share: Tensor, ends: tuple[float, float]) -> Tensor:
    """Return the factor of a share: 1 at share 0, and the two ends of the range at -1 and 1, linear between them."""
    low, high = ends
    return 1 + torch.where(share < 0, share * (1 - low), share * (high - 1))


def _sides(ends: tuple[float, float]) -> tuple[float, float]:
    """Return the lowest and highest share of a factor's range around 1; 0 for a side that the range lacks."""
    return (-1.0 if ends[0] < 1 else 0.0), (1.0 if ends[1] > 1 else 0.0)


def _symmetric(reach: float) -> tuple[float, float]:
    """Return the lowest and highest share of the range from `-reach` to `reach`."""
    return (-1.0, 1.0) if reach else (0.0, 0.0)


@dataclass(frozen=True)
class Affine(ParametricThreat):
    """Rotate, shear and scale about the centre of the image, then translate, with bilinear interpolation.

    Attributes:
        rotation: largest angle in degrees, both ways.
        shear: largest shear along either side, both ways, below 1.
        scale: smallest and largest factor, around 1.
        translation: largest shift along either side, both ways, as a share of that side.
        padding: what fills the area outside the image: `"zeros"`, `"border"` or `"reflection"`.
    """

    rotation: float = 30.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translation: float = 0.1
    padding: str = "zeros"
    norm = "affine"
    parameters = ("rotation", "shear_x", "shear_y", "scale", "translation_x", "translation_y")

    def ends(self) -> list[tuple[float, float]]:
        """Return the lowest and highest share of each parameter at `eps = 1`."""
        shear, shift = _symmetric(self.shear), _symmetric(self.translation)
        return [_symmetric(self.rotation), shear, shear, _sides(self.scale), shift, shift]

    def check(self, x: Tensor) -> None:
        """Raise InputError unless the ranges and eps are valid and keep the warp invertible."""
        super().check(x)
        if min(self.rotation, self.shear, self.translation) < 0 or not 0 < self.scale[0] <= 1 <= self.scale[1]:
            raise InputError(
                "rotation, shear and translation must be >= 0 and scale a pair around 1, got "
                f"{self.rotation}, {self.shear}, {self.translation} and {self.scale}"
            )
        if self.padding not in ("zeros", "border", "reflection"):
            raise InputError(f"unknown padding {self.padding!r}; choices: border, reflection, zeros")
        largest = float(torch.as_tensor(self.eps).max()) if len(x) else 0.0
        if largest * self.shear >= 1 or largest * (1 - self.scale[0]) >= 1:
            raise InputError(
                f"eps {largest:g} times the ranges must leave the shear below 1 and the scale above 0, got shear "
                f"{self.shear} and scale {self.scale}"
            )

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the warped images, `[B, C, H, W]`."""
        angle, shear_x, shear_y, scale, shift_x, shift_y = z.unbind(1)
        angle = angle * math.radians(self.rotation)
        cos, sin, h, v = angle.cos(), angle.sin(), self.shear * shear_x, self.shear * shear_y
        # Each pixel is read at the place that it comes from: undo the shift, then invert rotation x shear x scale.
        inverse = 1 / (_between(scale, self.scale) * (1 - h * v))
        a, b = inverse * (cos + h * sin), inverse * (sin - h * cos)
        c, d = inverse * (-sin - v * cos), inverse * (cos - v * sin)
        t_x, t_y = -2 * self.translation * shift_x, -2 * self.translation * shift_y
        # The grid runs from -1 to 1 along both sides, whatever their lengths.
        ratio = x.shape[2] / x.shape[3]
        first = torch.stack([a, b * ratio, a * t_x + b * ratio * t_y], 1)
        second = torch.stack([c / ratio, d, c / ratio * t_x + d * t_y], 1)
        grid = F.affine_grid(torch.stack([first, second], 1), list(x.shape), align_corners=False)
        warped = F.grid_sample(x, grid, mode="bilinear", padding_mode=self.padding, align_corners=False)
        # Clip, because rounded interpolation weights may sum to a little more than one. Where z is 0, the result is
        # exactly x, with the gradient of the warp.
        warped = warped.clamp(0, 1)
        still = per_sample((z == 0).all(1), x)
        return torch.where(still, x + (warped - warped.detach()), warped)


@dataclass(frozen=True)
class Photometric(ParametricThreat):
    """Change contrast (a gain) and brightness (a bias) of the image or its complement: `gain * x + bias`, clipped.

    Attributes:
        brightness: largest bias, both ways, in units of the image.
        contrast: smallest and largest gain, around 1.
        complement: whether `1 - x` may replace `x`; since this is on or off, it needs an eps of at least 1.
    """

    brightness: float = 0.95
    contrast: tuple[float, float] = (0.0, 5.0)
    complement: bool = True
    norm = "photometric"
    parameters = ("brightness", "contrast", "complement")

    def ends(self) -> list[tuple[float, float]]:
        """Return the lowest and highest share of each parameter at `eps = 1`."""
        return [_symmetric(self.brightness), _sides(self.contrast), (0.0, float(self.complement))]

    def check(self, x: Tensor) -> None:
        """Raise InputError unless the ranges and eps are valid."""
        super().check(x)
        if self.brightness < 0 or not 0 <= self.contrast[0] <= 1 <= self.contrast[1]:
            raise InputError(
                "brightness must be >= 0 and contrast a pair of numbers >= 0 around 1, got "
                f"{self.brightness} and {self.contrast}"
            )

    def apply(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the images with the new contrast and brightness."""
        bias, share, flip = (per_sample(part, x) for part in z.unbind(1))
        gain = _between(share, self.contrast).clamp_min(0)
        return (gain * torch.where(flip > 0.5, 1 - x, x) + self.brightness * bias).clamp(0, 1)

    def switched(self, z: Tensor) -> list[Tensor]:
        """Return `z` for the image and for its complement."""
        states = (0.0, 1.0) if self.complement else (0.0,)
        return [torch.cat([z[:, :2], torch.full_like(z[:, 2:], state)], 1) for state in states]

    def _settled(self, z: Tensor, high: Tensor) -> Tensor:
        allowed = (high[..., 2] >= 1) & self.complement
        flip = (2 * z[..., 2] >= high[..., 2]) & allowed
        return torch.cat([z[..., :2], flip.to(z)[..., None]], -1)
