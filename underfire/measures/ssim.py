"""Structural similarity (SSIM) of two maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from underfire.catalog import card
from underfire.measures.agreement import common_grid
from underfire.measures.maps import informative, normalise


@card(
    "measure",
    paper="Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment: From Error Visibility to Structural "
    "Similarity, IEEE TIP 2004",
    table="maps",
    higher_is_better=True,
    limits=(-1.0, 1.0),
)
def map_ssim(m: Tensor, n: Tensor, *, window: int = 7) -> Tensor:
    """Return the mean structural similarity of the min-max normalised maps, `[B]`; 1 if they are equal.

    Means, variances and the covariance are computed in every square of `window` x `window` pixels that lies inside the
    map (a smaller square in a smaller map), unweighted and unbiased. The constants are those of the paper for values in
    [0, 1]. The result is nan where either map is constant or not finite.
    """
    known = informative(m) & informative(n)
    a, b = (normalise(t) for t in common_grid({"m": normalise(m), "n": normalise(n)}).values())
    side = min(window, a.shape[2], a.shape[3])
    c1, c2 = 0.01**2, 0.03**2

    def mean(t: Tensor) -> Tensor:
        return F.avg_pool2d(t, side, 1)

    unbiased = side**2 / max(1, side**2 - 1)
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b = unbiased * (mean(a * a) - mu_a**2), unbiased * (mean(b * b) - mu_b**2)
    covariance = unbiased * (mean(a * b) - mu_a * mu_b)
    alike = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return torch.where(known, alike.mean((1, 2, 3)).clamp(-1, 1), torch.nan)
