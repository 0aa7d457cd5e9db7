"""The prediction-interpretation gap: how far an attacker can drive a prediction and its map apart.

Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 5, find that a classifier and its
interpreter are only partially aligned; the number is defined here, and explained in `docs/gap.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import wide
from underfire.measures.statistics import bootstrap_ratio
from underfire.records import Interval

QUANTILE = 0.8
"""The quantile above which pixels count as highlighted, the default of `map_iou`."""


def likeness(iou: Tensor, *, quantile: float = QUANTILE) -> Tensor:
    """Return how much of a map is kept beyond chance, in `[0, 1]`, from its IoU with the clean map.

    Two maps with an IoU of `j` share `o = 2 j / (1 + j)` of their top pixels, and unrelated maps share `1 - quantile`
    of them, wherever their top pixels lie. The likeness is `(o - (1 - quantile)) / quantile`: 1 for the same top
    pixels, 0 for as few common ones as by chance, or fewer.
    """
    share = 2 * iou / (1 + iou)
    return ((share - (1 - quantile)) / quantile).clamp(0, 1)


def areas(fooled: Tensor, iou: Tensor, eps: Tensor, *, quantile: float = QUANTILE) -> tuple[Tensor, Tensor]:
    """Return for each sample the area over eps of success times likeness, and of success alone, `[B]` each.

    An attacker who may use a size may also use a smaller one, so each sample keeps its best result at larger sizes. The
    area is that of the trapezoidal rule from eps 0, where nothing is fooled, to the largest size.

    Args:
        fooled: whether an attack at this size changed the prediction, bool `[K, B]`.
        iou: the largest `map_iou` with the clean map among these attacks, `[K, B]`; ignored where nothing is fooled.
            nan, where it is unknown, makes both areas nan.
        eps: the sizes, positive and ascending, `[K]`.

    Raises:
        InputError: the shapes do not fit, or the sizes are not positive and ascending.
    """
    if fooled.dim() != 2 or iou.shape != fooled.shape or eps.shape != fooled.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (fooled, iou, eps))
        raise InputError(f"fooled and iou must be [K, B], and eps [K], got {shapes}")
    sizes = torch.cat([torch.zeros(1, dtype=torch.float64), eps.double().cpu()])
    if len(sizes) < 2 or not bool((sizes.diff() > 0).all()):
        raise InputError(f"eps must be positive and ascending sizes, at least one, got {eps.tolist()}")
    hits = fooled.to(iou.device, torch.bool)
    products = torch.where(hits, likeness(wide(iou), quantile=quantile), 0.0)
    unknown = products.isnan().any(0)
    curves = torch.stack([products.nan_to_num(), hits.to(products.dtype)]).cummax(1).values
    curves = torch.cat([torch.zeros_like(curves[:, :1]), curves], 1)
    found = torch.trapezoid(curves, sizes.to(curves), dim=1)
    kept, won = torch.where(unknown, torch.nan, found)
    return kept, won


def gap_interval(kept: Tensor, fooled: Tensor) -> Interval:
    """Return the gap, the ratio of the two areas over all samples, with its 95 % bootstrap interval over the samples.

    Args:
        kept: the area of success times likeness of each sample, `[B]` (see `areas`).
        fooled: the area of success, `[B]`; samples that no attack fools and unknown ones are left out.
    """
    counted = ~kept.isnan() & (fooled > 0)
    return bootstrap_ratio(kept[counted], fooled[counted])


@card(
    "measure",
    paper="Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 5",
    higher_is_better=False,
    limits=(0.0, 1.0),
    whole=True,
)
def interpretation_gap(fooled: Tensor, iou: Tensor, eps: Tensor, *, quantile: float = QUANTILE) -> float:
    """Return the prediction-interpretation gap: how much of a map can be kept while the prediction changes.

    It is the area over eps of success times `likeness`, divided by the area of success, both summed over the samples.
    0: where the prediction changes, the map becomes unrelated to the clean one; the two move together. 1: the map can
    be kept whole wherever the prediction can be changed; the two are independent. nan if no sample is fooled.

    Args:
        fooled: whether an attack at this size changed the prediction, bool `[K, B]`.
        iou: the largest `map_iou` with the clean map among these attacks, `[K, B]`; a sample with nan is left out.
        eps: the sizes, positive and ascending, `[K]`.
        quantile: the quantile with which `iou` was measured.

    Raises:
        InputError: the shapes do not fit, or the sizes are not positive and ascending.
    """
    return gap_interval(*areas(fooled, iou, eps, quantile=quantile)).value
