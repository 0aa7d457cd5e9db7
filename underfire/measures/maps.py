"""Distance and overlap of two maps `m` and `n`, `[B, 1, h, w]`, raw, as interpreters return them.

Maps of different sizes are compared on the larger grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import as_map, ratio

_PAPER = "Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 4.3, appendix C1"


def normalise(m: Tensor) -> Tensor:
    """Return each map scaled to [0, 1] by its minimum and maximum; a constant map becomes zeros."""
    m = as_map(m)
    low, high = m.amin((1, 2, 3), keepdim=True), m.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, ratio(m - low, high - low), m - low)


def resize(m: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maps on a grid of `size` (H, W), by bilinear interpolation, with antialiasing if they shrink."""
    m = as_map(m)
    if m.shape[2:] == tuple(size):
        return m
    shrinks = m.shape[2] > size[0] or m.shape[3] > size[1]
    return F.interpolate(m, size=tuple(size), mode="bilinear", align_corners=False, antialias=shrinks)


def one_grid(m: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Return both batches of maps, resized to the larger grid."""
    if len(m) != len(n):
        raise InputError(f"the two batches of maps must have one length, got {len(m)} and {len(n)}")
    size = max(m.shape[2], n.shape[2]), max(m.shape[3], n.shape[3])
    return resize(m, size), resize(n, size)


def _gap(m: Tensor, n: Tensor) -> Tensor:
    """Return the difference of the normalised maps at every pixel, `[B, h·w]`."""
    # Normalise before resizing as well: resizing adds rounding errors to a constant map.
    m, n = one_grid(normalise(m), normalise(n))
    return (normalise(m) - normalise(n)).flatten(1)


@card("measure", paper=_PAPER, table="maps", higher_is_better=False, limits=(0.0, 1.0))
def map_l1(m: Tensor, n: Tensor) -> Tensor:
    """Return the mean absolute difference of the min-max normalised maps, `[B]`: L1 divided by the number of pixels."""
    return _gap(m, n).abs().mean(1)


@card("measure", paper=_PAPER, table="maps", higher_is_better=False, limits=(0.0, 1.0))
def map_l2(m: Tensor, n: Tensor) -> Tensor:
    """Return the root mean square difference of the min-max normalised maps, `[B]`."""
    gap = _gap(m, n)
    return torch.linalg.vector_norm(gap, dim=1) / gap.shape[1] ** 0.5


def ranks(m: Tensor) -> Tensor:
    """Return the rank of every pixel in its map, int64 `[B, h·w]`; the largest has rank 0, ties keep reading order."""
    order = as_map(m).flatten(1).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(order.shape[1], device=m.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def informative(m: Tensor) -> Tensor:
    """Return whether each map is finite and not constant, and therefore ranks its pixels, bool `[B]`."""
    m = as_map(m)
    low, high = m.amin((1, 2, 3)), m.amax((1, 2, 3))
    return torch.isfinite(low) & torch.isfinite(high) & (high > low)


def top_count(pixels: int, quantile: float) -> int:
    """Return how many of `pixels` lie above `quantile`: at least one, and exactly 20 % for 0.8.

    Raises:
        InputError: the quantile is not in [0, 1).
    """
    if not 0 <= quantile < 1:
        raise InputError(f"quantile must lie in [0, 1), such as 0.8 for the top 20 % of pixels, got {quantile}")
    return max(1, round((1 - quantile) * pixels))


@card("measure", paper=_PAPER, table="maps", higher_is_better=True, limits=(0.0, 1.0))
def map_iou(m: Tensor, n: Tensor, *, quantile: float = 0.8) -> Tensor:
    """Return the intersection over union of the top pixels of both maps, `[B]`.

    The same number of pixels is taken from each map; among equal pixels, the first in reading order. The top pixels of
    a map that is zero almost everywhere therefore include zeros, and two such maps share some of them; `map_iou_sweep`
    shows whether that happens. The result is nan where either map is constant or not finite.
    """
    return map_iou_sweep(m, n, (quantile,))[:, 0]


def map_iou_sweep(m: Tensor, n: Tensor, quantiles: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)) -> Tensor:
    """Return `map_iou` at each of the quantiles, `[B, Q]`; the maps are sorted once."""
    known = informative(m) & informative(n)
    m, n = one_grid(m, n)
    later = torch.maximum(ranks(m), ranks(n))  # a pixel is in both top sets if both its ranks are below k
    columns = []
    for quantile in quantiles:
        k = top_count(later.shape[1], quantile)
        both = (later < k).sum(1).to(m.dtype)
        columns.append(both / (2 * k - both))
    return torch.where(known[:, None], torch.stack(columns, 1), torch.nan)
