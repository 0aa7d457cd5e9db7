"""Draw heatmaps and perturbations, and encode pictures as PNG; a picture is float `[1 or 3, H, W]` in [0, 1]."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SEQUENTIAL, DIVERGING = "viridis", "PuOr_r"  # perceptually uniform and safe for colour-blind readers
_VIVID = 0.38  # how far from its middle, 0.5, the diverging colour map is used; its ends are too dark
_BRIGHTEST = 0.99  # the quantile of a map that gets the full colour, so that one extreme pixel does not dim all others


@cache
def _table(name: str) -> Tensor:
    """Return the colours of a matplotlib colour map, `[256, 3]`."""
    from matplotlib import colormaps

    colours = colormaps[name]
    return torch.tensor([colours(i)[:3] for i in range(256)], dtype=torch.float32)


def _colours_of(v: Tensor, name: str) -> Tensor:
    """Return values `[H, W]` in [0, 1] as colours, RGB `[3, H, W]`."""
    return _table(name)[(v.clamp(0, 1) * 255).round().long()].permute(2, 0, 1)


def rgb(image: Tensor) -> Tensor:
    """Return the image as float32 RGB `[3, H, W]` in [0, 1] on the CPU; one channel becomes grey.

    Raises:
        InputError: the image is not `[1 or 3, H, W]`, or a value is NaN.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"a picture must be [C, H, W] with one or three channels, got {tuple(image.shape)}")
    picture = image.detach().float().cpu()
    if bool(picture.isnan().any()):
        raise InputError("a picture must have no NaN")
    return picture.clamp(0, 1).expand(3, -1, -1).contiguous()


def heatmap(map: Tensor, image: Tensor, *, signed: bool | None = None) -> Tensor:  # noqa: A002
    """Draw an attribution map `[1, h, w]` of any size over its image: RGB `[3, H, W]`.

    The image is drawn in grey below the colours; the stronger the map, the more the colour covers the image. For a map
    without negative values, colours run from violet (its minimum) over green to yellow (its maximum). For a map with
    negative values, they run from violet (against the class) to orange (for the class), symmetric around zero. The
    strongest 1 % of the pixels share the full colour. For a constant map, only the grey image is drawn.

    Args:
        map: `[1, h, w]`.
        image: `[1 or 3, H, W]` in [0, 1].
        signed: whether to draw the map as one that has negative values, so that several maps of an interpreter have
            one colour scale; None looks at the map itself.

    Raises:
        InputError: a shape is wrong, or a value is NaN or infinite.
    """
    if map.dim() != 3 or map.shape[0] != 1:
        raise InputError(f"a map must be [1, h, w], got {tuple(map.shape)}")
    m = map.detach().float().cpu()
    if not bool(m.isfinite().all()):
        raise InputError("a map must be finite to be drawn, got NaN or infinity")
    picture = rgb(image)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).expand(3, -1, -1)
    if m.min() == m.max():
        return grey.contiguous()
    signed = bool((m < 0).any()) if signed is None else signed
    # resize the map to the image
    v = m / m.abs().max()
    v = F.interpolate(v[None], size=grey.shape[1:], mode="bilinear", antialias=True)[0, 0]
    # scale it so that the strongest pixels get 1
    strength = v.abs() if signed else v - v.min()
    ordered = strength.flatten().sort().values
    full = ordered[int(_BRIGHTEST * (len(ordered) - 1))]
    full = full if full > 0 else ordered[-1].clamp_min(1e-12)  # only very few pixels are not 0, or none after resizing
    strength = (strength / full).clamp(0, 1)
    # cover the grey image with colours
    colour = _colours_of(0.5 + _VIVID * strength * v.sign(), DIVERGING) if signed else _colours_of(strength, SEQUENTIAL)
    cover = 0.35 + 0.55 * strength
    return cover * colour + (1 - cover) * grey


def colour_bar(signed: bool) -> Tensor:
    """Return the colours of `heatmap` from the smallest to the largest value, RGB `[3, 1, 256]`, for a legend.

    Args:
        signed: whether the map has negative values.
    """
    strength = torch.linspace(-1, 1, 256) if signed else torch.linspace(0, 1, 256)
    return _colours_of((0.5 + _VIVID * strength if signed else strength)[None], DIVERGING if signed else SEQUENTIAL)


def magnify(x: Tensor, x_adv: Tensor) -> tuple[Tensor, float]:
    """Draw the perturbation around mid-grey, magnified so that its largest change becomes black or white.

    Returns:
        RGB `[3, H, W]`, and the factor of the magnification, which the caption must name; 1 if nothing changed.

    Raises:
        InputError: the two images differ in shape.
    """
    if x.shape != x_adv.shape:
        raise InputError(f"the two images must have the same shape, got {tuple(x.shape)} and {tuple(x_adv.shape)}")
    change = x_adv.detach().float() - x.detach().float()
    max_change = change.abs().max().item()
    factor = 0.5 / max_change if max_change > 0 else 1.0
    return rgb(0.5 + factor * change), factor


def to_image(image: Tensor, at_least: int = 0) -> Image:
    """Convert the image to an 8-bit Pillow image, enlarged by a whole factor until each side has `at_least` pixels."""
    from PIL.Image import fromarray

    picture = (rgb(image) * 255).round().to(torch.uint8).permute(1, 2, 0)
    factor = -(-at_least // min(picture.shape[:2]))
    if factor > 1:
        picture = picture.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return fromarray(picture.numpy())


def to_png_bytes(image: Tensor, at_least: int = 0) -> bytes:
    """Encode the image as a PNG file and return its bytes; `at_least` as in `to_image`."""
    buffer = io.BytesIO()
    to_image(image, at_least).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def to_data_uri(image: Tensor, at_least: int = 0) -> str:
    """Encode the image as a `data:` URI for the `src` of an HTML image; `at_least` as in `to_image`."""
    return "data:image/png;base64," + base64.b64encode(to_png_bytes(image, at_least)).decode()
