"""Random resizing and padding, R&P (Xie et al., ICLR 2018)."""

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
    paper="Xie, Wang, Zhang, Ren and Yuille, Mitigating Adversarial Effects through Randomization, ICLR 2018",
    random=True,
)
def resize_and_pad(
    model: Classifier,
    *,
    low: float = 310 / 299,
    high: float = 331 / 299,
    flip: bool = False,
    keep_size: bool = False,
    samples: int = 1,
    generator: Generator | None = None,
) -> Defended:
    """Resize every image to a random larger size and pad it with zeros at a random place (R&P); it has a gradient.

    The paper resizes images of 299 pixels to `r` pixels, `r` uniform in `[310, 331)`, by nearest neighbours, and pads
    to 331; the shares `low` and `high` scale these sizes to the side of the image. Every image of a batch has its own
    draw; in the paper, a batch shares one. The submission of the authors to the NIPS 2017 competition averages 30
    draws and flips half of the images.

    Args:
        low: the smallest side, as a share of the image's.
        high: the padded side, as a share of the image's.
        flip: mirror half of the images from left to right.
        keep_size: scale the padded images back to the size of the image, for a model that takes only one size.
        samples: number of draws whose probabilities are averaged.

    Raises:
        InputError: not 1 <= low < high <= 4. ModelError: on a call, the model does not take the padded size.
    """
    at_least_one(samples=samples)
    if not 1 <= low < high <= 4:
        raise InputError(f"resize_and_pad needs 1 <= low < high <= 4 (shares of the side), got {low} and {high}")

    def transform(x: Tensor, generator: Generator) -> Tensor:
        share = uniform(generator, x, 4, len(x))
        rows, columns = (_placed(size, low, high, share[0], share[1 + axis]) for axis, size in enumerate(x.shape[2:]))
        if flip:
            columns = torch.where(share[3, :, None, None] < 0.5, columns.flip(2), columns)
        padded = rows.to(x)[:, None] @ x @ columns.to(x)[:, None].transpose(2, 3)
        if keep_size:
            return F.interpolate(padded, x.shape[2:], mode="bilinear", align_corners=False, antialias=True)
        return padded

    return defended(model, transform, resize_and_pad, generator, samples=samples)


def _placed(size: int, low: float, high: float, scale: Tensor, place: Tensor) -> Tensor:
    """Return matrices `[B, full, size]` that resize a line of `size` pixels by nearest neighbours, and pad it.

    Args:
        scale: share in `[0, 1)` that draws the resized length between `low * size` and `full - 1`, `[B]`.
        place: share in `[0, 1)` that draws the pixels before the line, `[B]`.
    """
    full = max(round(size * high), size + 1)
    least = min(round(size * low), full - 1)
    length = least + (scale * (full - least)).floor()
    before = (place * (full - length + 1)).floor()
    position = torch.arange(full, device=scale.device) - before[:, None]
    source = (position * size / length[:, None]).floor()
    inside = (position >= 0) & (position < length[:, None])
    return (source[:, :, None] == torch.arange(size, device=scale.device)) & inside[:, :, None]
