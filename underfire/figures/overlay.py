"""Single pictures: images are float `[C, H, W]` in [0, 1] with one or three channels; results are RGB on the CPU."""

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

SEQUENTIAL, DIVERGING = "viridis", "PuOr_r"  # uniform in lightness, and told apart with any colour blindness
_VIVID = 0.38  # how far from its middle the diverging map is used: its ends are too dark to tell apart on an image
_BRIGHTEST = 0.99  # the quantile of a map that gets full colour: one extreme pixel must not darken all others


@cache
def _table(name: str) -> Tensor:
    """The colours of a matplotlib map, `[256, 3]`."""
    from matplotlib import colormaps

    colours = colormaps[name]
    return torch.tensor([colours(i)[:3] for i in range(256)], dtype=torch.float32)


def _coloured(v: Tensor, name: str) -> Tensor:
    """Values `[H, W]` in [0, 1] as RGB `[3, H, W]`."""
    return _table(name)[(v.clamp(0, 1) * 255).round().long()].permute(2, 0, 1)


def rgb(image: Tensor) -> Tensor:
    """The image as float32 RGB `[3, H, W]` in [0, 1] on the CPU; one channel becomes grey.

    Raises:
        InputError: it is not `[1 or 3, H, W]`, or a value is NaN.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"a picture must be [C, H, W] with one or three channels, got {tuple(image.shape)}")
    picture = image.detach().float().cpu()
    if bool(picture.isnan().any()):
        raise InputError("a picture must have numbers only, got NaN")
    return picture.clamp(0, 1).expand(3, -1, -1).contiguous()


def heatmap(map: Tensor, image: Tensor) -> Tensor:  # noqa: A002
    """An attribution map `[1, h, w]` of any size laid over its image: RGB `[3, H, W]`.

    The image shows through in grey; where the map is strong, the colour covers it. A map of one sign runs from violet
    over green to yellow, from its minimum to its maximum; a map with negative values runs from violet (against) to
    orange (for), equally far on both sides of zero. The strongest 1 % of the pixels share the full colour. A constant
    map leaves the grey image.

    Raises:
        InputError: a shape is wrong, or a value is NaN or infinite.
    """
    if map.dim() != 3 or map.shape[0] != 1:
        raise InputError(f"a map must be [1, h, w], got {tuple(map.shape)}")
    m = map.detach().float().cpu()
    if not bool(m.isfinite().all()):
        raise InputError("a map must have finite numbers to be drawn, got NaN or infinity")
    picture = rgb(image)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).expand(3, -1, -1)
    if m.min() == m.max():
        return grey.contiguous()
    signed = bool((m < 0).any())
    v = m / m.abs().max()
    v = F.interpolate(v[None], size=grey.shape[1:], mode="bilinear", antialias=True)[0, 0]
    strength = v.abs() if signed else v - v.min()
    ordered = strength.flatten().sort().values
    full = ordered[int(_BRIGHTEST * (len(ordered) - 1))]
    full = full if full > 0 else ordered[-1].clamp_min(1e-12)  # few pixels, or none left after shrinking
    strength = (strength / full).clamp(0, 1)
    colour = _coloured(0.5 + _VIVID * strength * v.sign(), DIVERGING) if signed else _coloured(strength, SEQUENTIAL)
    cover = 0.35 + 0.55 * strength
    return cover * colour + (1 - cover) * grey


def scale(signed: bool) -> Tensor:
    """The colours that `heatmap` gives to rising strength, from left to right: RGB `[3, 1, 256]`, for a legend."""
    strength = torch.linspace(-1, 1, 256) if signed else torch.linspace(0, 1, 256)
    return _coloured((0.5 + _VIVID * strength if signed else strength)[None], DIVERGING if signed else SEQUENTIAL)


def magnify(x: Tensor, x_adv: Tensor) -> tuple[Tensor, float]:
    """The perturbation around mid-grey, magnified until its largest change reaches black or white.

    Returns:
        RGB `[3, H, W]`, and the factor by which it was magnified: the caption must name it. 1 where nothing changed.
    """
    if x.shape != x_adv.shape:
        raise InputError(f"the two images must have one shape, got {tuple(x.shape)} and {tuple(x_adv.shape)}")
    change = x_adv.detach().float() - x.detach().float()
    largest = change.abs().max().item()
    factor = 0.5 / largest if largest > 0 else 1.0
    return rgb(0.5 + factor * change), factor


def to_image(image: Tensor, at_least: int = 0) -> Image:
    """The image in 8 bits for Pillow; a small one grows by a whole factor until its sides have `at_least` pixels."""
    from PIL.Image import fromarray

    picture = (rgb(image) * 255).round().to(torch.uint8).permute(1, 2, 0)
    factor = -(-at_least // min(picture.shape[:2]))
    if factor > 1:
        picture = picture.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    return fromarray(picture.numpy())


def to_png_bytes(image: Tensor, at_least: int = 0) -> bytes:
    """The image as the bytes of a PNG file; `at_least` as in `to_image`."""
    buffer = io.BytesIO()
    to_image(image, at_least).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def to_data_uri(image: Tensor, at_least: int = 0) -> str:
    """The image as a `data:` URI for the `src` of an HTML image; `at_least` as in `to_image`."""
    return "data:image/png;base64," + base64.b64encode(to_png_bytes(image, at_least)).decode()
