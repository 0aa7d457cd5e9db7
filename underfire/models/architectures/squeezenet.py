"""Define SqueezeNet for ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Fire(nn.Module):
    """A 1x1 convolution that narrows the features, and a 1x1 and a 3x3 convolution side by side that widen them."""

    def __init__(self, width_in: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width_in, narrow, 1)
        self.squeeze_relu = nn.ReLU()
        self.expand1 = nn.Conv2d(narrow, wide, 1)
        self.expand3 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_relu(self.squeeze(x))
        return self.relu(torch.cat([self.expand1(x), self.expand3(x)], 1))


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 for 1,000 classes, whose head is a 1x1 convolution, a ReLU and a global average.

    Source: Iandola et al.: SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016; version 1.1 is of the
    authors' repository.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2)
        self.relu1 = nn.ReLU()
        width = 64
        for number, (narrow, wide) in enumerate([(16, 64), (32, 128), (48, 192), (64, 256)]):
            for fire in (2 * number + 2, 2 * number + 3):
                self.add_module(f"fire{fire}", _Fire(width, narrow, wide))
                width = 2 * wide
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv10 = nn.Conv2d(width, 1000, 1)
        self.relu10 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, 1000]` of normalised images `[B, 3, H, W]`."""
        x = self.pool(self.relu1(self.conv1(x)))
        for number in range(2, 10):
            x = self.get_submodule(f"fire{number}")(x)
            if number in (3, 5):
                x = self.pool(x)
        return self.relu10(self.conv10(x)).mean((2, 3))
