"""Weakly supervised localisation: whether the box around a map's largest region matches the box of the object.

Source: Cao et al., Look and Think Twice, ICCV 2015; with the rules of `regions`, as Dabkowski and Gal, Real Time Image
Saliency for Black Box Classifiers, NIPS 2017, and after them Zhang et al., Interpretable Deep Learning under Fire,
USENIX Security 2020, table 2. They choose a threshold on held-out images; here each half of the images chooses the
threshold for the other half. A box is (left, top, right, bottom) in pixels, the last two exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import as_map, ratio
from underfire.measures.maps import informative, resize
from underfire.measures.regions import choose_on_other_half, regions, thresholds_of


@dataclass(frozen=True)
class Localised:
    """The box that a map gives for every image, compared with the box of the object.

    Attributes:
        hit: 1 where the box of the map is right, 0 where it is wrong, nan where one of the boxes is undefined, `[B]`.
        iou: the largest intersection over union of the map's box with a box of the object, `[B]`.
        box: the boxes of the maps, int64 `[B, 4]`.
        threshold: the threshold that the other half of the images chose, `[B]`.
    """

    hit: Tensor
    iou: Tensor
    box: Tensor
    threshold: Tensor


def largest_box(inside: Tensor) -> Tensor:
    """Return the smallest box around the largest connected part of each region, int64 `[N, 4]`; zeros if it is empty.

    Pixels are connected by their edges; among equally large parts the first in reading order is taken. The parts are
    found on the CPU.

    Args:
        inside: the regions, bool `[N, H, W]`.
    """
    from scipy import ndimage

    n, height, width = inside.shape
    # Stack the regions with an empty row between them, so that one call numbers all their parts in reading order.
    canvas = F.pad(inside.cpu(), (0, 0, 0, 1)).reshape(n * (height + 1), width)
    parts = torch.from_numpy(ndimage.label(canvas.numpy())[0]).view(n, height + 1, width)
    # Find the number of the largest part of each region; the parts of a region have consecutive numbers.
    sizes, largest, begin = parts.flatten().bincount(), torch.full((n, 1, 1), -1), 1
    for i, end in enumerate((parts.flatten(1).amax(1) + 1).tolist()):
        if end > begin:
            largest[i] = begin + sizes[begin:end].argmax()
            begin = end
    # Draw the box around it.
    one = parts == largest
    columns, rows = one.any(1).int(), one.any(2).int()
    first = torch.stack([columns.argmax(1), rows.argmax(1)], 1)
    last = torch.stack([width - columns.flip(1).argmax(1), height + 1 - rows.flip(1).argmax(1)], 1)
    return torch.where(largest[:, 0] > 0, torch.cat([first, last], 1), 0).to(inside.device)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes `[..., 4]`, float32 `[...]`: 0 if one is empty, nan if both are."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    both = sides.clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return ratio(both.float(), (areas[0] + areas[1] - both).float())


def localise(
    m: Tensor, boxes: Tensor, *, rule: str = "value", size: tuple[int, int] | None = None, least: float = 0.5
) -> Localised:
    """Compare the box of each map, at the threshold that the other half of the images chose, with the object's box.

    Args:
        m: maps `[B, 1, h, w]`.
        boxes: the box of the object `[B, 4]`, or several boxes `[B, n, 4]`, of which the one with the largest
            intersection over union counts; a box of zeros means that there is no box.
        rule: how a region is taken from a map: `"value"`, `"mean"` or `"energy"` (see `regions.regions`).
        size: H and W of the images, in whose pixels the boxes are given; None is the size of the maps.
        least: the smallest intersection over union at which a box is right.

    Raises:
        InputError: the rule is unknown, or the shapes do not fit.
    """
    m = as_map(m)
    known = informative(m)
    boxes = boxes.to(m.device)
    boxes = boxes[:, None] if boxes.dim() == 2 else boxes
    if boxes.dim() != 3 or boxes.shape[::2] != (len(m), 4):
        raise InputError(f"boxes must be [{len(m)}, 4] or [{len(m)}, n, 4], one for each map, got {tuple(boxes.shape)}")
    m = resize(m, size) if size is not None else m
    known = known & (boxes[..., 2:] > boxes[..., :2]).all(-1).any(1)
    thresholds = thresholds_of(rule)
    # One map at a time, because the regions at all T thresholds would need as much memory as T copies of the maps.
    drawn = torch.cat([largest_box(regions(one, rule).flatten(0, 1)) for one in m.split(1)])
    drawn = drawn.view(len(m), len(thresholds), 4)
    # Compare the boxes at every threshold with the object's, and let the other half choose the threshold.
    iou = box_iou(drawn[:, :, None], boxes[:, None]).nan_to_num(0).amax(2).to(m.dtype)
    hits = torch.where(known[:, None], (iou >= least).to(m.dtype), torch.nan)
    hit, place = choose_on_other_half(hits)
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
    """Return the share of images where the box around the map's largest region misses the object (IoU below `least`).

    Arguments and errors are those of `localise`. Maps that are constant or not finite and images without a box are left
    out. The result is nan unless each half keeps at least one image.
    """
    hit = localise(m, boxes, rule=rule, size=size, least=least).hit
    return float(1 - hit.nanmean())
