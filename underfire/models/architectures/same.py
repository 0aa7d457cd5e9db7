"""Define convolutions with the padding of TensorFlow."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: `n` rows or columns become `ceil(n / stride)`.

    If the number of padded pixels is odd, the end gets one pixel more than the beginning.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, ceil(H / s), ceil(W / s)]`."""
        sides = zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        rows, columns = (max((-(n // -s) - 1) * s + k - n, 0) for n, k, s in sides)  # padded at both ends together
        top, left = rows // 2, columns // 2
        if rows % 2 or columns % 2:  # `conv2d` pads both ends alike, so pad before
            x = F.pad(x, (left, columns - left, top, rows - top))
            top, left = 0, 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, self.groups)


class Same3x3(SameConv2d):
    """A 3x3 `SameConv2d`."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__(width_in, width, 3, stride)
