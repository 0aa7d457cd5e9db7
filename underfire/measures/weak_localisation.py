"""Weakly supervised localisation: whether a box drawn around a map's largest region is the box of the object.

Source: Cao et al., Look and Think Twice, ICCV 2015; with the rules of `regions`, as Dabkowski and Gal, Real Time Image
Saliency for Black Box Classifiers, NIPS 2017, and after them Zhang et al., Interpretable Deep Learning under Fire,
USENIX Security 2020, table 2. They choose a threshold on held-out images; here the two halves of the images choose for
each other. A box is (left, top, right, bottom) in pixels, the last two exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import is_map, ratio
from underfire.measures.maps import informative, resize
from underfire.measures.regions import cross_chosen, region, sweep


@dataclass(frozen=True)
class Localised:
    """Where a map saw the object of every image.

    Attributes:
        hit: 1 where the box is right, 0 where not, nan where the map or the box is undefined, `[B]`.
        iou: of the box with the nearest box of the object, `[B]`.
        box: int64 `[B, 4]`.
        threshold: that the other half of the images chose, `[B]`.
    """

    hit: Tensor
    iou: Tensor
    box: Tensor
    threshold: Tensor


def largest_box(inside: Tensor) -> Tensor:
    """The tight box of the largest connected part of each region, int64 `[B, 4]`; zeros where it is empty.

    Pixels are connected by their edges; of equal parts the first in reading order counts.

    Args:
        inside: bool `[B, 1, H, W]`.
    """
    from scipy import ndimage

    boxes = torch.zeros(len(inside), 4, dtype=torch.int64)
    for i, picture in enumerate(inside[:, 0].cpu().numpy()):
        parts, found = ndimage.label(picture)
        if found:
            largest = int(torch.from_numpy(parts).flatten().bincount()[1:].argmax())
            rows, columns = ndimage.find_objects(parts)[largest]
            boxes[i] = torch.tensor([columns.start, rows.start, columns.stop, rows.stop])
    return boxes.to(inside.device)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes `[..., 4]`, `[...]`, float32; 0 where one is empty, nan where both are."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    both = sides.clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return ratio(both.float(), (areas[0] + areas[1] - both).float())


def localise(
    m: Tensor, boxes: Tensor, *, rule: str = "value", size: tuple[int, int] | None = None, least: float = 0.5
) -> Localised:
    """The box that each map gives, with a threshold chosen on the other half of the images, against the object's.

    Args:
        m: maps `[B, 1, h, w]`.
        boxes: of the object, `[B, 4]`, or several of them `[B, n, 4]`, of which one must be met; zeros are no box.
        rule: how a region is taken from a map: `"value"`, `"mean"` or `"energy"` (see `regions.region`).
        size: H and W of the images, in whose pixels the boxes are; None is the size of the maps.
        least: the intersection over union from which a box is right.

    Raises:
        InputError: the rule is unknown, or the shapes do not fit.
    """
    m = is_map(m)
    known = informative(m)
    boxes = boxes.to(m.device)
    boxes = boxes[:, None] if boxes.dim() == 2 else boxes
    if boxes.dim() != 3 or boxes.shape[::2] != (len(m), 4):
        raise InputError(f"boxes must be [{len(m)}, 4] or [{len(m)}, n, 4], one for each map, got {tuple(boxes.shape)}")
    m = resize(m, size) if size is not None else m
    known = known & (boxes[..., 2:] > boxes[..., :2]).all(-1).any(1)
    thresholds = sweep(rule)
    drawn = torch.stack([largest_box(region(m, rule, alpha)) for alpha in thresholds], 1)  # [B, T, 4]
    iou = box_iou(drawn[:, :, None], boxes[:, None]).nan_to_num(0).amax(2).to(m.dtype)
    hits = torch.where(known[:, None], (iou >= least).to(m.dtype), torch.nan)
    hit, place = cross_chosen(hits)
    rows, at = torch.arange(len(m), device=m.device), place.clamp_min(0)
    threshold = torch.tensor(thresholds, dtype=m.dtype, device=m.device)[at]
    chosen = hit.isfinite()
    return Localised(
        hit,
        torch.where(chosen, iou[rows, at], torch.nan),
        torch.where(chosen[:, None], drawn[rows, at], 0),
        torch.where(place >= 0, threshold, torch.nan),
    )


@card(
    "measure",
    paper="Dabkowski and Gal, Real Time Image Saliency for Black Box Classifiers, NIPS 2017",
    higher_is_better=False,
    limits=(0.0, 1.0),
    whole=True,
)
def localisation_error(
    m: Tensor, boxes: Tensor, *, rule: str = "value", size: tuple[int, int] | None = None, least: float = 0.5
) -> float:
    """The share of images whose box, drawn around the map's largest region, misses the object's (IoU below 0.5).

    Args and errors as of `localise`. Maps that are constant or not finite draw no box and are left out, as are images
    without a box; nan where fewer than two images, one in each half, are left.
    """
    hit = localise(m, boxes, rule=rule, size=size, least=least).hit
    return float(1 - hit.nanmean())
