"""The transformations of corner cases, each from unchanged at strength 0 to the end of its stated range at strength 1.

A name is one transformation, such as `rotation`; or with a number another end of its range, such as `rotation_-40`; or
several that are applied one after the other at the same strength, such as `scale_0.6+rotation_30`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from underfire.errors import InputError, nearest, shown
from underfire.transforms import corruptions
from underfire.transforms.affine import linear_maps, resample
from underfire.validate import per_sample


@dataclass(frozen=True)
class Draws:
    """The random numbers of transformations, one set for each image, which are the same at every strength.

    Attributes:
        grain: standard normal numbers, shaped like the images; None if no transformation adds noise.
        clouds: the levels of fractals, `[B, L, S, S]`; None if no transformation is fog.
    """

    grain: Tensor | None = None
    clouds: Tensor | None = None

    def take(self, index: Tensor) -> Draws:
        """Return the numbers of the images at `index`, int64 `[n]`."""
        parts = (part if part is None else part[index] for part in (self.grain, self.clouds))
        return Draws(*parts)


def _rotation(x: Tensor, degrees: Tensor, draws: Draws) -> Tensor:
    angle = degrees * (math.pi / 180)
    return resample(x, linear_maps(angle.cos(), angle.sin(), -angle.sin(), angle.cos()))


def _shear(x: Tensor, shear: Tensor, draws: Draws) -> Tensor:
    # a pixel is read at the place that it comes from: the inverse of [[1, s], [s, 1]]
    inverse = 1 / (1 - shear**2)
    return resample(x, linear_maps(inverse, -shear * inverse, -shear * inverse, inverse))


def _scale(x: Tensor, factor: Tensor, draws: Draws) -> Tensor:
    zero = torch.zeros_like(factor)
    return resample(x, linear_maps(1 / factor, zero, zero, 1 / factor))


def _translation(x: Tensor, share: Tensor, draws: Draws) -> Tensor:
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return resample(x, linear_maps(one, zero, zero, one), -share[:, None] * x.new_tensor(x.shape[2:]))


def _brightness(x: Tensor, bias: Tensor, draws: Draws) -> Tensor:
    return x + per_sample(bias, x)


def _contrast(x: Tensor, gain: Tensor, draws: Draws) -> Tensor:
    return x * per_sample(gain, x)


def _complement(x: Tensor, share: Tensor, draws: Draws) -> Tensor:
    return torch.where(per_sample(share, x) >= 1, 1 - x, x)


def _noise(x: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    assert draws.grain is not None
    return corruptions.gaussian_noise(x, severity, draws.grain)


def _fog(x: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    assert draws.clouds is not None
    return corruptions.fog(x, severity, draws.clouds)


def _blur(x: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    return corruptions.blur(x, severity)


def _jpeg(x: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    return corruptions.compression(x, severity)


@dataclass(frozen=True)
class _Part:
    """One transformation: its function, what changes nothing, the end of its range, and the ends that are possible."""

    change: Callable[[Tensor, Tensor, Draws], Tensor]
    start: float
    end: float
    least: float
    most: float
    unit: str


_PARTS = {
    "rotation": _Part(_rotation, 0, 70, -180, 180, "degrees counter-clockwise"),
    "shear": _Part(_shear, 0, 0.5, -0.9, 0.9, "along both sides"),
    "scale": _Part(_scale, 1, 0.4, 0.05, 20, "times the size"),
    "translation": _Part(_translation, 0, 0.64, -1, 1, "of each side, to the right and down"),
    "brightness": _Part(_brightness, 0, 0.95, -1, 1, "added"),
    "contrast": _Part(_contrast, 1, 5, 0, 100, "times the values"),
    "complement": _Part(_complement, 0, 1, 1, 1, "(1 is the complement)"),
    "noise": _Part(_noise, 0, 5, 0, 5, "of 5 severities"),
    "blur": _Part(_blur, 0, 5, 0, 5, "of 5 severities"),
    "fog": _Part(_fog, 0, 5, 0, 5, "of 5 severities"),
    "jpeg": _Part(_jpeg, 0, 5, 0, 5, "of 5 severities"),
}
SETS = {
    "deep_validation": ("rotation", "shear", "scale", "translation", "brightness", "contrast", "complement"),
    "corruptions": ("noise", "blur", "fog", "jpeg"),
}
"""Sets of transformations by name: those of Deep Validation, and those of the corruption benchmarks."""


@dataclass(frozen=True)
class Transformation:
    """One transformation, or several that are applied one after the other at the same strength.

    Attributes:
        name: the name, such as `rotation`.
        kinds: the name of each part without its number.
        ends: the end of the range of each part, in its unit.
    """

    name: str
    kinds: tuple[str, ...]
    ends: tuple[float, ...]

    def apply(self, x: Tensor, strength: Tensor, draws: Draws | None = None) -> Tensor:
        """Return images `[B, C, H, W]` after the transformation; at strength 0, an image is exactly unchanged.

        Args:
            x: the images, in `[0, 1]`.
            strength: 0 to 1, one for each image `[B]`.
            draws: the random numbers, as `draws_for` returns them; None draws new ones with a fixed seed.
        """
        changed, draws = x, draws or draws_for([self], x, None)
        for kind, end in zip(self.kinds, self.ends, strict=True):
            part = _PARTS[kind]
            changed = part.change(changed, part.start + strength.to(x) * (end - part.start), draws).clamp(0, 1)
        return torch.where(per_sample(strength == 0, x), x, changed)

    def at(self, strength: float) -> str:
        """Return the setting of every part at a strength, in words, such as `rotation 35 degrees counter-clockwise`."""
        words = []
        for kind, end in zip(self.kinds, self.ends, strict=True):
            part = _PARTS[kind]
            words.append(f"{kind} {part.start + strength * (end - part.start):.3g} {part.unit}")
        return ", ".join(words)


def transformations(names: str | Sequence[str]) -> tuple[Transformation, ...]:
    """Return transformations by their names, or those of a set by its name.

    Raises:
        InputError: a name is unknown or given twice, or the end of a range is not possible.
    """
    given: Any = SETS.get(names, (names,)) if isinstance(names, str) else names
    if not given or len(set(given)) < len(given):
        raise InputError(f"transformations must be one or more different names, got {shown(names)}")
    return tuple(_parsed(str(name)) for name in given)


def draws_for(chosen: Sequence[Transformation], x: Tensor, generator: Generator | None) -> Draws:
    """Draw the random numbers that the transformations of images `[B, C, H, W]` need."""
    if generator is None:
        generator = Generator(x.device).manual_seed(0)
    kinds = {kind for transformation in chosen for kind in transformation.kinds}
    grain = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device) if "noise" in kinds else None
    return Draws(grain, corruptions.cloud_levels(x, generator) if "fog" in kinds else None)


def _parsed(name: str) -> Transformation:
    kinds, ends = [], []
    for word in name.split("+"):
        kind, _, number = word.strip().partition("_")
        part = _PARTS.get(kind)
        if part is None:
            raise InputError(f"unknown transformation {shown(word)}; {nearest(kind, [*_PARTS, *SETS])}")
        try:
            end = float(number) if number else part.end
        except ValueError:
            raise InputError(
                f"the end of a range must be a number, as in {kind}_{part.end:g}, got {shown(word)}"
            ) from None
        if not part.least <= end <= part.most:
            raise InputError(f"{kind} must end between {part.least:g} and {part.most:g} {part.unit}, got {end:g}")
        kinds.append(kind)
        ends.append(end)
    return Transformation(name, tuple(kinds), tuple(ends))
