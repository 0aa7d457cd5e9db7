"""The masking model of real-time saliency: a class selector and a U-Net decoder over a classifier's feature maps.

Source: Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NeurIPS 2017, section 4. The encoder is
the classifier itself, which is not changed and not a part of these modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 32  # channels of the finest level; the published network, for a larger classifier, has 64


class ClassSelector(nn.Module):
    """Attenuate the places of the coarsest feature maps at which class `y` is not found."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, channels)
        nn.init.normal_(self.embedding.weight, std=channels**-0.5)

    def forward(self, features: Tensor, y: Tensor, threshold: float = 0.0) -> Tensor:
        """Return features `[B, D, h, w]` times sigmoid(act - threshold); act is their product with embedding y."""
        act = torch.einsum("bdhw,bd->bhw", features, self.embedding(y)).unsqueeze(1)
        return features * torch.sigmoid(act - threshold)

    def exists(self, pooled: Tensor, y: Tensor) -> Tensor:
        """Return the logit of "class `y` is in the image", `[B]`, from features averaged over space, `[B, D]`."""
        return (pooled * self.embedding(y)).sum(1)


class Bottleneck(nn.Module):
    """A residual block of convolutions 1x1, 3x3, 1x1 (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 4)
        self.block = nn.Sequential(
            nn.Conv2d(channels_in, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, z: Tensor) -> Tensor:
        """Return feature maps `[B, D, h, w]` of feature maps `[B, C, h, w]`."""
        return F.relu(self.block(z) + self.shortcut(z))


class Upsampler(nn.Module):
    """One level of the U-Net: enlarge by a pixel shuffle, then join with the encoder's feature maps of that size.

    Args:
        channels_in: channels of the coarser level.
        passed: channels of the encoder's feature maps.
        channels: channels of the result.
    """

    def __init__(self, channels_in: int, passed: int, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.Conv2d(channels_in, 4 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.join = Bottleneck(channels + passed, channels)

    def forward(self, z: Tensor, beside: Tensor) -> Tensor:
        """Return feature maps `[B, D, H, W]` of the coarser level `[B, C, h, w]` and the encoder's `[B, P, H, W]`."""
        z = F.relu(self.norm(F.pixel_shuffle(self.enlarge(z), 2)))
        height, width = beside.shape[2:]
        if z.shape[2] - height in (0, 1) and z.shape[3] - width in (0, 1):
            z = z[:, :, :height, :width]  # the encoder rounded an odd side up
        else:  # the encoder's sizes differ here by another factor than two
            z = F.interpolate(z, size=(height, width), mode="bilinear", align_corners=False)
        return self.join(torch.cat([z, beside], 1))


class MaskingModel(nn.Module):
    """The network that turns feature maps of an image and a class into a mask of the evidence for that class.

    Args:
        channels: channels of each of the feature maps, the coarsest first.
        classes: number of classes.
        width: channels of the finest level; each coarser level has twice as many.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.channels, self.classes, self.width = tuple(channels), classes, width
        self.selector = ClassSelector(classes, channels[0])
        steps = len(channels) - 1
        widths = [channels[0], *(width * 2 ** (steps - 1 - i) for i in range(steps))]
        self.up = nn.ModuleList(Upsampler(*sizes) for sizes in zip(widths[:-1], channels[1:], widths[1:], strict=True))
        self.head = nn.Conv2d(widths[-1], 2, 1)

    def forward(self, features: Sequence[Tensor], y: Tensor, threshold: float = 0.0) -> Tensor:
        """Return the mask `[B, 1, h, w]` in `[0, 1]`, at the size of the last of `features`, which is the finest."""
        z = self.selector(features[0], y, threshold)
        for up, beside in zip(self.up, features[1:], strict=True):
            z = up(z, beside)
        a, b = cast(Tensor, self.head(z)).abs().split(1, 1)
        return a / (a + b).clamp_min(torch.finfo(z.dtype).tiny)
