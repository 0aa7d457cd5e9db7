"""Compress images as JPEG and decompress them, in torch, with a gradient (ITU-T T.81, as the usual codecs apply it)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.errors import InputError
from underfire.transforms.rounding import replaced

# Quantisation tables K.1 and K.2 of the standard, for quality 50.
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
# The matrix from RGB to luma and chroma.
_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


@cache
def _constants() -> tuple[Tensor, Tensor, Tensor]:
    """Return the quantisation tables `[2, 64]`, the cosine transform of a block `[64, 64]`, and the matrix `[3, 3]`."""
    tables = torch.tensor([[float(v) for v in text.split()] for text in (_LUMA, _CHROMA)], dtype=torch.float64)
    k = torch.arange(8, dtype=torch.float64)
    line = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    line[0] /= math.sqrt(2)
    return tables, torch.kron(line, line), torch.tensor(_YCC, dtype=torch.float64)


def quantisation(quality: Tensor) -> Tensor:
    """Return the quantisation tables of luma and chroma, `[B, 2, 64]`, for qualities `[B]`, as common codecs do."""
    quality = quality.to(torch.float64)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    tables = _constants()[0].to(quality.device)
    return ((tables * percent.reshape(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)


def _rounded(v: Tensor) -> Tensor:
    """Round as the codecs do, halves away from zero; the gradient is that of the identity."""
    return replaced(v, torch.trunc(v + 0.5 * v.sign()))


def cosine_transforms(planes: Tensor) -> Tensor:
    """Return the cosine transforms of blocks of 8 x 8 pixels, `[B, n, 64]`, row by row from the lowest frequency.

    Args:
        planes: `[B, C, h, w]`, whose sides are multiples of 8.
    """
    b, c, h, w = planes.shape
    blocks = planes.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(b, c * h * w // 64, 64)
    return blocks @ _constants()[1].to(planes).T


def in_blocks(planes: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return planes `[B, C, h, w]` after a function of their cosine transforms `[B, n, 64]`."""
    b, c, h, w = planes.shape
    decoded = function(cosine_transforms(planes)) @ _constants()[1].to(planes)
    return decoded.reshape(b, c, h // 8, w // 8, 8, 8).transpose(3, 4).reshape(b, c, h, w)


def _coded(plane: Tensor, table: Tensor) -> Tensor:
    """Return planes of levels around 0 after quantisation by 64 steps for each image, `[B, 64]`."""
    q = table.to(plane)[:, None]
    # coefficients are rounded to eighths before they are divided, as in the codecs
    return in_blocks(plane, lambda coefficients: _rounded(_rounded(8 * coefficients) / (8 * q)) * q)


def jpeg(x: Tensor, quality: int | float | Tensor = 75, *, subsample: bool = True) -> Tensor:
    """Compress images as JPEG and decompress them, with the values of a codec and a gradient as if nothing was rounded.

    Colour conversion, subsampling and clipping are differentiated; rounding has the gradient of the identity.

    Args:
        x: images `[B, C, H, W]` in `[0, 1]`; three channels are coded as luma and chroma, others each as luma.
        quality: 1 to 100, one number or one per sample `[B]`; fractions are rounded down.
        subsample: keep chroma at half the resolution, as most encoders do.

    Raises:
        InputError: a quality is not from 1 to 100.
    """
    levels = torch.as_tensor(quality, device=x.device).expand(len(x)).floor()
    if bool(((levels < 1) | (levels > 100)).any()):
        raise InputError(f"a JPEG quality must be from 1 to 100, got {quality}")
    tables, (height, width) = quantisation(levels), x.shape[2:]
    step = 16 if subsample and x.shape[1] == 3 else 8
    values = F.pad(_rounded(255 * x), (0, -width % step, 0, -height % step), mode="replicate")
    if x.shape[1] != 3:
        return _pixels(_coded(values - 128, tables[:, 0]) + 128, height, width)
    # colour conversion
    to_ycc = _constants()[2].to(x)
    ycc = _rounded(torch.einsum("ij,bjhw->bihw", to_ycc, values))
    luma, chroma = ycc[:, :1] - 128, ycc[:, 1:]
    # code luma, and chroma at half the resolution
    luma = _coded(luma, tables[:, 0])
    if subsample:
        # The codecs round halves down in even columns and up in odd ones.
        bias = 0.25 * (1 + torch.arange(chroma.shape[3] // 2, device=x.device, dtype=x.dtype) % 2)
        half = F.avg_pool2d(chroma, 2)
        chroma = _coded(replaced(half, (half + bias).floor()), tables[:, 1])
        chroma = F.interpolate(_rounded(chroma), scale_factor=2, mode="bilinear", align_corners=False)
    else:
        chroma = _coded(chroma, tables[:, 1])
    # back to RGB
    ycc = torch.cat([_rounded((luma + 128).clamp(0, 255)), _rounded(chroma.clamp(-128, 127))], dim=1)
    return _pixels(torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), ycc), height, width)


def _pixels(values: Tensor, height: int, width: int) -> Tensor:
    """Return grey levels, cut to the size of the image and rounded, as pixels in `[0, 1]`."""
    return _rounded(values[..., :height, :width].clamp(0, 255)) / 255
