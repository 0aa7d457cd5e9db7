"""Weakly supervised segmentation: whether a map's values separate the pixels of the object from the others.

Source: Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks, ICLR Workshops 2014, and the pixel scores
of Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010. Masks are bool `[B, 1, H, W]`; maps are
resized to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.measures.agreement import tie_groups
from underfire.measures.arrays import ratio
from underfire.measures.localisation import on_mask
from underfire.measures.regions import choose_on_other_half, regions

_PAPER = "Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010"


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(0.0, 1.0))
def segmentation_ap(m: Tensor, mask: Tensor) -> Tensor:
    """Return the average precision of the map's values as scores of the mask's pixels, `[B]`.

    Pixels of equal value share one threshold. A random map scores about the share of the pixels that lie in the mask.
    The result is nan where the map is constant or not finite, and where the mask is empty.
    """
    m, inside, known = on_mask(m, mask)
    values, order = m.flatten(1).sort(dim=1, descending=True)
    hit = inside.gather(1, order).to(m.dtype)
    _, last = tie_groups(values)
    precision = hit.cumsum(1).gather(1, last) / (last + 1)  # at the threshold that includes the pixel
    return torch.where(known, ratio((hit * precision).sum(1), hit.sum(1)), torch.nan)


def segmentation_sweep(m: Tensor, mask: Tensor, rule: str = "value") -> Tensor:
    """Return the intersection over union of the map's region with the mask at every threshold, `[B, T]`.

    The result is nan where the map is constant or not finite, and where the mask is empty.
    """
    m, inside, known = on_mask(m, mask)
    rows = []
    for one, mine in zip(m.split(1), inside.split(1), strict=True):  # all at once would need T copies of the maps
        taken = regions(one, rule).flatten(2)
        both, either = (taken & mine[:, None]).sum(2), (taken | mine[:, None]).sum(2)
        rows.append(ratio(both.to(m.dtype), either.to(m.dtype)))
    return torch.where(known[:, None], torch.cat(rows), torch.nan)


@card("measure", paper=_PAPER, higher_is_better=True, limits=(0.0, 1.0), whole=True)
def segmentation_iou(m: Tensor, mask: Tensor, *, rule: str = "value") -> float:
    """Return the mean intersection over union of the maps' regions with the masks.

    Each half of the images (even and odd indices) is tested at the threshold that is best for the other half. Images
    whose map is constant or not finite, or whose mask is empty, are left out. The result is nan unless each half keeps
    at least one image.
    """
    return float(choose_on_other_half(segmentation_sweep(m, mask, rule))[0].nanmean())
