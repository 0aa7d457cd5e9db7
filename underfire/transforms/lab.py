"""Convert images between linear RGB and CIE L*a*b* in eight bits, as OpenCV scales it (white point D65).

To L*, OpenCV multiplies by 296 instead of the exact 116 · 255 / 100 = 295.8; from L*, it uses the exact factor. This
module does the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)
_DARK, _SLOPE, _SHIFT, _GREY = 0.008856, 7.787, 16 / 116, 903.3  # the linear part of the curve, near black


def to_lab(x: Tensor) -> Tensor:
    """Return levels of L* (0 to 255), a* and b* (both shifted by 128) of linear RGB `[B, 3, H, W]` in `[0, 1]`."""
    matrix = x.new_tensor(_XYZ) / x.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, x)
    # near zero, where the slope of the cube root is infinite, the curve is a line
    f = torch.where(xyz > _DARK, xyz.clamp_min(_DARK) ** (1 / 3), _SLOPE * xyz + _SHIFT)
    fx, fy, fz = f.unbind(1)
    return torch.stack([296 * fy - 40.8, 500 * (fx - fy) + 128, 200 * (fy - fz) + 128], 1).clamp(0, 255)


def from_lab(lab: Tensor) -> Tensor:
    """Return linear RGB `[B, 3, H, W]` in `[0, 1]` from levels of L*, a* and b* in the scale of `to_lab`."""
    lightness, a, b = lab[:, 0] * 100 / 255, lab[:, 1] - 128, lab[:, 2] - 128
    bright = lightness > _GREY * _DARK
    fy = torch.where(bright, (lightness + 16) / 116, _SLOPE * lightness / _GREY + _SHIFT)
    f = torch.stack([fy + a / 500, fy, fy - b / 200], 1)
    xyz = torch.where(f > _SLOPE * _DARK + _SHIFT, f**3, (f - _SHIFT) / _SLOPE) * lab.new_tensor(_WHITE)[:, None, None]
    matrix = torch.linalg.inv(lab.new_tensor(_XYZ))
    return torch.einsum("ij,bjhw->bihw", matrix, xyz).clamp(0, 1)
