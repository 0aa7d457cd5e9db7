"""Define convolutions with the padding of TensorFlow."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, which returns `ceil(n / stride)` rows and columns.

    An odd padding has one pixel more at the end than at the beginning.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, ceil(H / s), ceil(W / s)]`."""
        sides = zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        top, left = (max((-(n // -s) - 1) * s + k - n, 0) for n, k, s in sides)
        before = (top // 2, left // 2)
        if top % 2 or left % 2:
            x = F.pad(x, (before[1], left - before[1], before[0], top - before[0]))
            before = (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, before, 1, self.groups)


class Same3x3(SameConv2d):
    """A 3x3 `SameConv2d`."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__(width_in, width, 3, stride)
