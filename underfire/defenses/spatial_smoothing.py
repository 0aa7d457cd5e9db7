"""Spatial smoothing: a median, a mean or a Gaussian around every pixel (Xu, Evans and Qi, NDSS 2018)."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.defenses.defended import Defended, defended
from underfire.errors import InputError
from underfire.model import Classifier
from underfire.transforms.blur import gaussian_blur, median_blur
from underfire.validate import check_choice


@card(
    "defense",
    paper="Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018",
)
def spatial_smoothing(
    model: Classifier, *, average: Literal["median", "mean", "gaussian"] = "median", side: int = 3
) -> Defended:
    """Replace every pixel by the median, the mean or a Gaussian mean of the square around it.

    All three have a gradient; that of a median is the gradient of the pixel that it takes. The median is the paper's.
    The border is repeated, and mirrored by the Gaussian.

    Args:
        average: the average of the square that is taken.
        side: side of the square in pixels, odd for a mean and a Gaussian, whose standard deviation is `side / 6`.

    Raises:
        InputError: the side is out of range. Unsupported: the average is unknown.
    """
    check_choice(("median", "mean", "gaussian"), average=average)
    if not 2 <= side <= 31 or (average != "median" and side % 2 == 0):
        raise InputError(f"spatial_smoothing needs a side of 2 to 31 pixels, odd unless it is a median, got {side}")
    reach = side // 2

    def smoothed(x: Tensor, _: Generator) -> Tensor:
        if average == "median":
            return median_blur(x, side)
        if average == "gaussian":
            return gaussian_blur(x, side / 6, reach)
        return F.avg_pool2d(F.pad(x, [reach] * 4, mode="replicate"), side, stride=1)

    return defended(model, smoothed, spatial_smoothing)
