"""The centre of mass of a map, and how far it moves: a measure of attacks on explanations."""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.measures.arrays import as_map, ratio
from underfire.measures.maps import informative


def importance(m: Tensor) -> Tensor:
    """Return the share of every pixel in the sum of the map's absolute values, `[B, 1, h, w]`; nan for a map of zeros.

    Source: Ghorbani, Abid and Zou, Interpretation of Neural Networks is Fragile, AAAI 2019, section 2.
    """
    size = as_map(m).abs()
    # scaled first, so that the sums of tiny or huge values stay exact
    size = ratio(size, size.amax((1, 2, 3), keepdim=True))
    return ratio(size, size.sum((1, 2, 3), keepdim=True))


def centre_of_mass(m: Tensor) -> Tensor:
    """Return the mean place of the map's importance, `[B, 2]`: row and column as shares of the height and the width."""
    share = importance(m)
    rows, columns = (
        (torch.arange(n, device=m.device, dtype=share.dtype) + 0.5) / n for n in (share.shape[2], share.shape[3])
    )
    return torch.stack([(share.sum((1, 3)) * rows).sum(1), (share.sum((1, 2)) * columns).sum(1)], 1)


@card(
    "measure",
    paper="Ghorbani, Abid and Zou, Interpretation of Neural Networks is Fragile, AAAI 2019",
    table="maps",
    higher_is_better=False,
    limits=(0.0, 1.0),
)
def map_centre_shift(m: Tensor, n: Tensor) -> Tensor:
    """Return the distance of the two maps' centres of mass, `[B]`, as a share of the diagonal of the map.

    The mass of a pixel is its absolute value. (The paper states the distance in pixels.) The result is nan where either
    map is constant or not finite.
    """
    known = informative(m) & informative(n)
    height, width = m.shape[2], m.shape[3]
    down, right = (centre_of_mass(m) - centre_of_mass(n)).unbind(1)
    length = ((down * height).square() + (right * width).square()).sqrt()
    return torch.where(known, length / (height**2 + width**2) ** 0.5, torch.nan)
