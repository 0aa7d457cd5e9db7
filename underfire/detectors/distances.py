"""Distances between features, for the detectors that compare an input with known ones."""

from __future__ import annotations

from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared Euclidean distances of all rows of `a` `[n, D]` from all rows of `b` `[m, D]`, `[n, m]`.

    They are computed in float64 by one matrix product, whose rounding would be too large in float32.
    """
    a, b = a.double(), b.double()
    centre = b.mean(0).detach()
    a, b = a - centre, b - centre
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
