"""Localisation: whether a map is large where the evidence is known to be.

The map `m` is `[B, 1, h, w]`, raw; the mask is bool `[B, 1, H, W]`, at the size of the image. The map is resized to the
size of the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import ratio
from underfire.measures.maps import informative, ranks, resize, top_count


def on_mask(m: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the map at the size of the mask, the mask `[B, H·W]`, and whether both are usable, bool `[B]`.

    They are usable if the map is finite and not constant, and the mask is not empty.

    Raises:
        InputError: the mask is not `[B, 1, H, W]`, one for each map.
    """
    if mask.dim() != 4 or mask.shape[1] != 1 or len(mask) != len(m):
        raise InputError(f"the mask must be [{len(m)}, 1, H, W], one for each map, got {tuple(mask.shape)}")
    known = informative(m)
    inside = mask.to(m.device).bool().flatten(1)
    return resize(m, (mask.shape[2], mask.shape[3])), inside, known & inside.any(1)


@card(
    "measure",
    paper="Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016",
    table="maps",
    higher_is_better=True,
    limits=(0.0, 1.0),
)
def pointing_game(m: Tensor, mask: Tensor) -> Tensor:
    """Return whether the largest value of the map lies inside the mask, bool `[B]`, without tolerance at its border.

    The result is False for a constant map and for an empty mask.
    """
    m, inside, known = on_mask(m, mask)
    return known & inside.gather(1, m.flatten(1).argmax(1, keepdim=True))[:, 0]


@card(
    "measure",
    paper="Wang et al., Score-CAM, CVPR Workshops 2020 (the energy-based pointing game)",
    table="maps",
    higher_is_better=True,
    limits=(0.0, 1.0),
)
def mass_inside(m: Tensor, mask: Tensor) -> Tensor:
    """Return the share of the sum of the map's positive values that lies inside the mask, `[B]`.

    Negative values are evidence against the class and do not count. The result is nan where the map is constant, not
    finite or nowhere positive, and where the mask is empty.
    """
    m, inside, known = on_mask(m, mask)
    mass = m.flatten(1).clamp_min(0)
    mass = ratio(mass, mass.amax(1, keepdim=True))  # scaled, so that the sums of tiny or huge values stay exact
    share = ratio((mass * inside).sum(1), mass.sum(1))
    return torch.where(known, share, torch.nan)


@card(
    "measure",
    paper="Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010",
    table="maps",
    higher_is_better=True,
    limits=(0.0, 1.0),
)
def localisation_iou(m: Tensor, mask: Tensor, *, quantile: float | None = None) -> Tensor:
    """Return the intersection over union of the map's top pixels with the mask, `[B]`.

    Without a `quantile`, the top pixels are as many as the mask has, so that a perfect map scores 1; otherwise, they
    are the pixels above that quantile of the map. The result is nan where the map is constant or not finite, and where
    the mask is empty.
    """
    m, inside, known = on_mask(m, mask)
    area = inside.sum(1)
    k = area if quantile is None else torch.full_like(area, top_count(inside.shape[1], quantile))
    both = ((ranks(m) < k[:, None]) & inside).sum(1).to(m.dtype)
    return torch.where(known, ratio(both, k + area - both), torch.nan)
