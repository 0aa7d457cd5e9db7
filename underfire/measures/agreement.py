"""Agreement of explanations on which pixels matter: rank correlations, top pixels, all pairs of several interpreters.

Maps of different sizes are compared on the larger grid. Only the order of the pixels counts, not the units of a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.errors import InputError
from underfire.measures.arrays import as_map, ratio
from underfire.measures.maps import informative, ranks, resize, top_count

_ADEBAYO = "Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018"


def common_grid(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps on the largest grid among them, by name, each `[B, 1, h, w]`.

    Raises:
        InputError: there are no maps, or their lengths differ.
    """
    if not maps or len({len(as_map(m)) for m in maps.values()}) > 1:
        lengths = {name: len(m) for name, m in maps.items()}
        raise InputError(f"maps must be of the same images, one batch from each interpreter, got lengths {lengths}")
    size = max(m.shape[2] for m in maps.values()), max(m.shape[3] for m in maps.values())
    return {name: resize(m, size) for name, m in maps.items()}


def tie_groups(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each place of sorted rows the first and the last place with an equal value, int64 `[B, n]` each."""
    n = values.shape[1]
    places = torch.arange(n, device=values.device).expand_as(values)
    same = values[:, 1:] == values[:, :-1]
    edge = torch.zeros_like(values[:, :1], dtype=torch.bool)
    first = torch.where(torch.cat([edge, same], 1), 0, places).cummax(1).values
    last = torch.where(torch.cat([same, edge], 1), n, places).flip(1).cummin(1).values.flip(1)
    return first, last


def average_ranks(m: Tensor) -> Tensor:
    """Return the rank of every pixel, `[B, h·w]`: 0 is the smallest; equal pixels get the mean of their ranks."""
    values, order = as_map(m).flatten(1).sort(dim=1)
    first, last = tie_groups(values)
    return torch.empty_like(values).scatter_(1, order, (first + last).to(values.dtype) / 2)


def _standard(m: Tensor) -> Tensor:
    """Return the average ranks, centred and of length one, `[B, h·w]`; nan where the map is constant or not finite."""
    r = average_ranks(m)
    r = (r - r.mean(1, keepdim=True)) / r.shape[1]  # divided, so that the squares of large ranks lose no digits
    unit = ratio(r, torch.linalg.vector_norm(r, dim=1, keepdim=True))
    return torch.where(informative(m)[:, None], unit, torch.nan)


@card("measure", paper=_ADEBAYO, table="maps", higher_is_better=True, limits=(-1.0, 1.0))
def map_rank_correlation(m: Tensor, n: Tensor) -> Tensor:
    """Return Spearman's correlation of the pixels' ranks, `[B]`; nan where either map is constant or not finite."""
    a, b = common_grid({"m": m, "n": n}).values()
    known = informative(m) & informative(n)  # before resizing, which adds rounding errors to a constant map
    return torch.where(known, (_standard(a) * _standard(b)).sum(1).clamp(-1, 1), torch.nan)


@card(
    "measure",
    paper="Kendall, The Treatment of Ties in Ranking Problems, Biometrika 1945",
    table="maps",
    higher_is_better=True,
    limits=(-1.0, 1.0),
)
def map_kendall(m: Tensor, n: Tensor, *, side: int = 28) -> Tensor:
    """Return Kendall's tau-b, `[B]`: the share of pixel pairs that both maps order alike minus that of the others.

    Pairs that are tied in a map do not count. Since the number of pairs is large, maps are first resized to at most
    `side` x `side` pixels. The result is nan where either map is constant or not finite.
    """
    if side < 2:
        raise InputError(f"side must be at least 2 pixels, got {side}")
    known = informative(m) & informative(n)
    a, b = common_grid({"m": m, "n": n}).values()
    size = min(side, a.shape[2]), min(side, a.shape[3])
    a, b = (resize(t, size).flatten(1) for t in (a, b))
    found = torch.stack([_pairs(first, second) for first, second in zip(a, b, strict=True)]) if len(a) else a.sum(1)
    return torch.where(known, found, torch.nan)


def _pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return tau-b of two rows of values."""
    s, t = (v[:, None].sub(v).sign_() for v in (a, b))
    untied = (s.abs().mean() * t.abs().mean()).sqrt()
    return ratio((s * t).mean(), untied).clamp(-1, 1)


@card("measure", paper=_ADEBAYO, table="maps", higher_is_better=True, limits=(0.0, 1.0))
def map_top_overlap(m: Tensor, n: Tensor, *, quantile: float = 0.9) -> Tensor:
    """Return the share of the top pixels of one map that are top pixels of the other, `[B]`.

    Random maps share `1 - quantile` of them. Among equal pixels the first in reading order are taken. The result is nan
    where either map is constant or not finite. With `k = (1 - quantile) h w` this is the top-k intersection of Ghorbani
    et al., Interpretation of Neural Networks is Fragile, AAAI 2019.
    """
    return agreement({"m": m, "n": n}, quantile=quantile).values[0, 1]


@dataclass(frozen=True)
class Agreement:
    """The pairwise agreement of several interpreters, image by image.

    Attributes:
        names: the names of the `n` interpreters.
        values: the agreement of every pair, `[n, n, B]`; nan where either map is constant or not finite.
    """

    names: tuple[str, ...]
    values: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean over the images, `[n, n]`; nan values are left out."""
        return self.values.nanmean(2)


def agreement(maps: Mapping[str, Tensor], *, quantile: float | None = None) -> Agreement:
    """Return the pairwise agreement of several interpreters; every map is sorted once.

    Args:
        maps: maps `[B, 1, h, w]` of the same images and classes, by the name of the interpreter.
        quantile: compare the top pixels above this quantile, as `map_top_overlap` does; None gives Spearman's
            correlation of all pixels.

    Raises:
        InputError: the maps are not of the same images, or the quantile is not in [0, 1).
    """
    grids = common_grid(maps)
    known = torch.stack([informative(m) for m in maps.values()])
    if quantile is None:
        rows, count = torch.stack([_standard(m) for m in grids.values()]), 1
    else:
        count = top_count(math.prod(next(iter(grids.values())).shape[2:]), quantile)
        rows = torch.stack([(ranks(m) < count).to(m.dtype) for m in grids.values()])
    values = (torch.einsum("ibp,jbp->ijb", rows, rows) / count).clamp(-1, 1)
    return Agreement(tuple(maps), torch.where(known[:, None] & known[None], values, torch.nan))
