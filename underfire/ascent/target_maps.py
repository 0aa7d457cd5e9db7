"""Target maps: the maps that an attack on an explanation tries to produce.

A target map is made when the attack runs, from the maps of the clean images, so that it has their size. In a spec file
or on the command line it is written like a part of a recipe: `benign`, `random_patch`, `random_patch(shape="circle")`,
`other_class` or `picture("arrow.png")`.

Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 5.1 (random patch, random
class).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from underfire.errors import InputError
from underfire.errors import shown as worded
from underfire.measures.maps import informative, resize
from underfire.validate import check_choice, check_number

Shape = Literal["any", "rectangle", "circle"]


@dataclass(frozen=True)
class Clean:
    """The clean images as an attack on explanations sees them.

    Attributes:
        maps: the interpreter's maps for the predicted classes, `[B, 1, h, w]`.
        predicted: these classes, int64 `[B]`.
        goal: classes to reach, int64 `[B]`.
    """

    maps: Tensor
    predicted: Tensor
    goal: Tensor


@dataclass(frozen=True)
class TargetMap:
    """A rule that makes target maps.

    Attributes:
        make: `(clean, generator) -> maps [B, 1, h, w]`.
        of_batch: whether the target of an image depends on the other images of the batch.
    """

    make: Callable[[Clean, Generator], Tensor]
    of_batch: bool = False


def benign() -> TargetMap:
    """Aim at the map of the clean image, so that the explanation does not change."""
    return TargetMap(lambda clean, generator: clean.maps)


def random_patch(shape: Shape = "any", smallest: float = 0.05, largest: float = 0.3) -> TargetMap:
    """Aim at a map that is 1 in a patch and 0 elsewhere; shape, size, angle and place are drawn for every image.

    Args:
        shape: `"rectangle"`, `"circle"`, or `"any"`, which draws one of them.
        smallest: smallest area of the patch, as a share of the map.
        largest: largest area; sides of a rectangle are at most 2 to 1.

    Raises:
        InputError: the shares are not in (0, 1), or the first is larger. Unsupported: the shape is unknown.
    """
    check_choice(("any", "rectangle", "circle"), shape=shape)
    check_number(smallest=smallest, largest=largest)
    if not 0 < smallest <= largest < 1:
        raise InputError(f"0 < smallest <= largest < 1 must hold for a random patch, got {smallest} and {largest}")

    def make(clean: Clean, generator: Generator) -> Tensor:
        height, width = clean.maps.shape[2:]
        like, count = clean.maps, len(clean.maps)
        draw = torch.rand(count, 6, generator=generator, dtype=torch.float64, device=like.device)
        kind, share, angle, ratio, down, right = draw[:, :, None, None].unbind(1)
        # half sides of the rectangle, or the radius, in cells of the map
        area = (smallest + (largest - smallest) * share) * height * width
        circle = (kind < 0.5) if shape == "any" else torch.full_like(kind, float(shape == "circle")).bool()
        stretch = (4.0 ** (ratio - 0.5)).sqrt()
        half = torch.where(circle, (area / math.pi).sqrt(), area.sqrt() / 2)
        a, b = (torch.where(circle, half, half * factor) for factor in (stretch, 1 / stretch))
        cos, sin = (2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()
        # a centre such that the patch lies inside the map, if it fits
        reach_down = torch.where(circle, half, a * sin.abs() + b * cos.abs()).clamp(max=height / 2)
        reach_right = torch.where(circle, half, a * cos.abs() + b * sin.abs()).clamp(max=width / 2)
        row = reach_down + (height - 2 * reach_down) * down
        column = reach_right + (width - 2 * reach_right) * right
        # the cells whose middle is inside, and the cell nearest to the centre in any case
        rows, columns = (torch.arange(n, device=like.device, dtype=torch.float64) + 0.5 for n in (height, width))
        y, x = rows[:, None] - row, columns - column
        u, v = cos * x + sin * y, cos * y - sin * x
        inside = torch.where(circle, u.square() + v.square() <= half.square(), (u.abs() <= a) & (v.abs() <= b))
        distance = (u.square() + v.square()).flatten(1)
        nearest = torch.zeros_like(distance, dtype=torch.bool).scatter_(1, distance.argmin(1, keepdim=True), True)
        return (inside | nearest.view_as(inside)).to(like.dtype)[:, None]

    return TargetMap(make)


def other_class() -> TargetMap:
    """Aim at the clean map of another image of the batch, of a class that is neither the prediction nor the goal.

    Raises:
        InputError: when the attack runs, the batch has no image of such a class.
    """

    def make(clean: Clean, generator: Generator) -> Tensor:
        wrong = clean.predicted == clean.predicted[:, None]
        wrong = wrong | (clean.predicted == clean.goal[:, None])
        if bool(wrong.all(1).any()):
            raise InputError(
                "target other_class needs an image of a third class in the batch for every image; give a larger batch, "
                "and a model of three or more classes"
            )
        draw = torch.rand(wrong.shape, generator=generator, device=wrong.device)
        return clean.maps[draw.masked_fill(wrong, -1).argmax(1)]

    return TargetMap(make, of_batch=True)


def picture(file: str | Path | Any) -> TargetMap:
    """Aim at one picture for all images: bright is important.

    Args:
        file: an image file, which is read in grey, or an array `[h, w]`.

    Raises:
        DataError: the file cannot be read as an image. InputError: the array is not `[h, w]`.
    """
    if isinstance(file, (str, Path)):
        from underfire.data.images import read_image  # Pillow is imported only if a picture is read

        shown = read_image(file, mode="L")[0]
    else:
        try:
            shown = torch.as_tensor(file)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"a picture must be an image file or an array [h, w], got {worded(file)}") from None
        if shown.dim() != 2:
            raise InputError(f"a picture must be an image file or an array [h, w], got {tuple(shown.shape)}")
    return TargetMap(lambda clean, generator: shown.to(clean.maps).expand(len(clean.maps), 1, -1, -1))


def target_maps(target: Tensor | TargetMap | None, clean: Clean, *, resized: bool, generator: Generator) -> Tensor:
    """Return the target maps of an attack, `[B, 1, h, w]`, of the size of the clean maps.

    Args:
        target: the maps themselves, a rule that makes them, or None for the clean maps.
        clean: the clean images.
        resized: whether to resize maps of another size; if False, such maps raise an error.
        generator: source of random targets.

    Raises:
        InputError: the maps are not `[B, 1, h, w]`, have another size, hold NaN, or are constant.
    """
    if target is None:
        return clean.maps
    maps: Any = target.make(clean, generator) if isinstance(target, TargetMap) else target
    if not isinstance(maps, Tensor) or maps.dim() != 4 or maps.shape[:2] != (len(clean.maps), 1):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise InputError(f"target must be one map per image, [{len(clean.maps)}, 1, h, w], got {got}")
    if maps is clean.maps:
        return maps
    maps = maps.detach().to(clean.maps)
    size = clean.maps.shape[2], clean.maps.shape[3]
    if maps.shape[2:] != size and not resized:
        shapes = f"{maps.shape[2]} x {maps.shape[3]} and the interpreter's maps are {size[0]} x {size[1]}"
        raise InputError(f"the target maps are {shapes}; give maps of that size, or resize=True")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("the target maps hold NaN or infinity; they must be finite")
    maps = resize(maps, size)
    if not bool(informative(maps).all()):
        first = int((~informative(maps)).nonzero()[0])
        raise InputError(f"the target map of image {first} has one value everywhere, so it shows nothing")
    return maps
