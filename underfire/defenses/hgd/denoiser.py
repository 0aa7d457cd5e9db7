"""The denoising U-net of HGD, DUNET: it predicts the perturbation, and adds its negative to the image.

Source: Liao et al., Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser, CVPR 2018,
section 3.2 and figure 3; the numbers of channels and convolutions are those of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.defenses.networks import DefenseNetwork

WIDTH = 64
FORWARD = ((1, 2), (2, 3), (4, 3), (4, 3), (4, 3))
"""Channels, as a multiple of the width, and convolutions of each block of the path down, the finest first."""
BACKWARD = ((1, 2), (2, 3), (4, 3), (4, 3))
"""The same for the path up."""


def block(inner: int, outer: int, count: int, stride: int = 1) -> nn.Sequential:
    """Return `count` times a 3 × 3 convolution, batch normalisation and ReLU; the first has the stride."""
    layers: list[nn.Module] = []
    for i in range(count):
        shape = (inner if i == 0 else outer, outer, 3, stride if i == 0 else 1)
        layers += [nn.Conv2d(*shape, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers)


class Denoiser(DefenseNetwork):
    """A U-net for images of any size whose output is added to the image.

    Args:
        channels: number of channels of the images.
        width: number of channels of the finest level, 64 in the paper; the next levels have twice and four times as
            many.
    """

    defense = "hgd"

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__(channels=channels, width=width)
        down, inner = [], channels
        for i, (factor, count) in enumerate(FORWARD):
            down.append(block(inner, factor * width, count, stride=2 if i else 1))
            inner = factor * width
        up: list[nn.Module] = []
        for (factor, count), (lateral, _) in zip(BACKWARD[::-1], FORWARD[-2::-1], strict=True):
            up.append(block(inner + lateral * width, factor * width, count))
            inner = factor * width
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.final = nn.Conv2d(inner, channels, 1, bias=False)

    def clean(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Return the denoised images, which may leave the range of the values of images."""
        # the path down; the outputs are kept for the path up
        h, lateral = x - 0.5, []
        for layer in self.down:
            h = layer(h)
            lateral.append(h)
        # the path up: enlarge, append the output of the same size, convolve
        for layer, kept in zip(self.up, lateral[-2::-1], strict=True):
            h = F.interpolate(h, size=kept.shape[2:], mode="bilinear", align_corners=False)
            h = layer(torch.cat((h, kept), 1))
        residual: Tensor = self.final(h)
        return x + residual
