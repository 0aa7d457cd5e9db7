"""Cropping and rescaling: the mean answer to random crops (Guo et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended, uniform
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.validate import at_least_one


@card(
    "defense",
    paper="Guo, Rana, Cisse and van der Maaten, Countering Adversarial Images Using Input Transformations, ICLR 2018",
    random=True,
)
def crop_ensemble(
    model: Classifier, *, share: float = 90 / 224, samples: int = 30, generator: Generator | None = None
) -> Defended:
    """Average the probabilities of random square crops that are scaled to the size of the image; it has a gradient.

    Args:
        share: side of a crop as a share of the side of the image; the paper cuts 90 of 224 pixels.
        samples: number of crops.

    Raises:
        InputError: not 0 < share <= 1.
    """
    at_least_one(samples=samples)
    if not 0 < share <= 1:
        raise InputError(f"crop_ensemble needs a share of the side in (0, 1], got {share}")

    def cropped(x: Tensor, generator: Generator) -> Tensor:
        height, width = (max(round(size * share), 1) for size in x.shape[2:])
        drawn = uniform(generator, x, 2, len(x))
        top, left = ((d * (n - m + 1)).long() for d, n, m in zip(drawn, x.shape[2:], (height, width), strict=True))
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        # each crop is gathered as rows, then as columns
        found = x.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        found = found.gather(3, columns[:, None, None].expand(-1, x.shape[1], height, -1))
        return F.interpolate(found, x.shape[2:], mode="bilinear", align_corners=False)

    return defended(model, cropped, crop_ensemble, generator, samples=samples)
