"""Random changes of training images that keep their class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.learning.batches import Augment
from underfire.validate import at_least


def crop_and_flip(padding: int = 4, *, flip: bool = True) -> Augment:
    """Return the usual augmentation of small photographs: each image is shifted, and mirrored with probability 0.5.

    Args:
        padding: largest shift in pixels, in both directions; what enters the image is black.
        flip: whether images are mirrored.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """
    at_least(0, padding=padding)

    def augment(x: Tensor, generator: Generator) -> Tensor:
        count, _, height, width = x.shape
        draws = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=generator.device).to(x.device)
        rows = torch.arange(height, device=x.device) + draws[0]
        columns = torch.arange(width, device=x.device) + draws[1]
        if flip:
            mirrored = torch.rand(count, 1, generator=generator, device=generator.device).to(x.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        image = torch.arange(count, device=x.device)[:, None, None]
        padded = F.pad(x, (padding,) * 4).permute(0, 2, 3, 1)
        return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    return augment
