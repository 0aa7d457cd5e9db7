"""The two networks of ComDefend: ComCNN compresses an image to 12 bits per pixel, RecCNN reconstructs it.

Source: Jia et al., ComDefend: An Efficient Image Compression Model to Defend Adversarial Examples, CVPR 2019; the
numbers of channels are those of its table and of the authors' code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.defenses.networks import DefenseNetwork

WIDTH, BITS, NOISE = 16, 12, 20.0
_COMPRESS, _RECONSTRUCT = (1, 2, 4, 8, 16, 8, 4, 2), (2, 4, 8, 16, 8, 4, 2, 1)  # channels, as multiples of the width


def layers(channels: list[int]) -> nn.Sequential:
    """Return 3 × 3 convolutions between these numbers of channels, with an ELU after each but the last.

    Their first weights are normal with a variance of 2 over the number of inputs, and their biases zero, so that the
    output varies as much as the input. Those of torch would shrink it more than a hundredfold in nine layers, and the
    noise on a code so small leaves nothing from which the training could begin (ours; the paper does not say).
    """
    made = [layer for pair in pairwise(channels) for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ELU())]
    for layer in made[::2]:
        nn.init.kaiming_normal_(cast(nn.Conv2d, layer).weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, layer.bias))
    return nn.Sequential(*made[:-1])


class CompressionNetwork(DefenseNetwork):
    """ComCNN and RecCNN, for images of any size.

    Args:
        channels: number of channels of the images.
        width: number of channels of the first layer; 16 in the paper.
        bits: number of bits of each pixel between the networks; 12 in the paper.

    Attributes:
        noise: standard deviation of the noise on the code before it becomes bits.
        patch: side of the squares into which images are cut; 0 leaves them whole.
    """

    defense = "comdefend"
    noise, patch = 0.0, 0

    def __init__(self, channels: int, width: int = WIDTH, bits: int = BITS) -> None:
        super().__init__(channels=channels, width=width, bits=bits)
        self.compress = layers([channels, *(factor * width for factor in _COMPRESS), bits])
        self.reconstruct = layers([bits, *(factor * width for factor in _RECONSTRUCT), channels])

    def code(self, x: Tensor, noise: float, generator: Generator | None) -> Tensor:
        """Return the code `[B, bits, H, W]`, less normal noise of a standard deviation; its sign becomes the bits."""
        code: Tensor = self.compress(x - 0.5)
        if not noise:
            return code
        device = None if generator is None else generator.device
        drawn = torch.randn(code.shape, generator=generator, device=device, dtype=code.dtype).to(code.device)
        return code - noise * drawn

    def image(self, bits: Tensor) -> Tensor:
        """Return the images `[B, C, H, W]` of bits, or of numbers in `[0, 1]` in their place."""
        image: Tensor = self.reconstruct(bits).sigmoid()
        return image

    def clean(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Return the reconstructed images.

        The bits have no gradient; that of `sigmoid(code / 20)` takes its place, the smooth form of the bits at the
        scale of the noise of the training.
        """
        squares = x if self.patch == 0 else in_squares(x, self.patch)
        code = self.code(squares, self.noise, generator)
        smooth = (code / NOISE).sigmoid()
        made = self.image((code > 0).to(x) + (smooth - smooth.detach()))
        return made if self.patch == 0 else from_squares(made, x.shape)


def in_squares(x: Tensor, side: int) -> Tensor:
    """Cut images into squares, `[B * rows * columns, C, side, side]`; those at the edge repeat its pixels outside."""
    right, bottom = -x.shape[3] % side, -x.shape[2] % side
    cut = F.pad(x, (0, right, 0, bottom), mode="replicate").unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def from_squares(squares: Tensor, shape: torch.Size) -> Tensor:
    """Put squares together to images of `shape`, and cut off what is outside."""
    side, (count, _, height, width) = squares.shape[-1], shape
    rows, columns = -(-height // side), -(-width // side)
    grid = squares.unflatten(0, (count, rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return grid.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
