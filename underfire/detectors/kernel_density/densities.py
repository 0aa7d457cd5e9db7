"""Gaussian kernel density of features, with one estimate for each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from underfire.detectors.distances import squared_distances

_SAME = 1e-10  # squared distance, as a share of the squared bandwidth, at which an input counts as a known one
_CHOICES = 41  # bandwidths that `best_bandwidth` compares
_MOST = 500  # features of each class that it compares them on


def log_density(features: Tensor, known: Tensor, bandwidth: Tensor | float, *, held_out: bool) -> Tensor:
    """Return the logarithm of the Gaussian kernel density of features `[B, D]` at known features `[n, D]`, `[B]`.

    Args:
        bandwidth: the standard deviation of the kernel.
        held_out: leave out a known feature that equals the one that is scored, so that no input supports itself.
    """
    distances = squared_distances(features, known)
    width = torch.as_tensor(bandwidth, dtype=distances.dtype, device=distances.device)
    exponents, count = -distances / (2 * width**2), torch.full_like(distances[:, 0], len(known))
    if held_out:
        same = distances.detach() <= _SAME * width**2
        exponents, count = exponents.masked_fill(same, -math.inf), (~same).sum(1).to(distances.dtype)
        # an input that equals all known ones keeps one of them
        alone = count == 0
        exponents = torch.where(alone[:, None], -distances / (2 * width**2), exponents)
        count = torch.where(alone, float(len(known)), count)
    normaliser = known.shape[1] * (width.log() + 0.5 * math.log(2 * math.pi))
    return (exponents.logsumexp(1) - count.log() - normaliser).to(features.dtype)


def class_log_density(
    features: Tensor, y: Tensor, known: Tensor, classes: Tensor, bandwidth: Tensor | float, *, held_out: bool
) -> Tensor:
    """Return the log-density of each feature among the known features of class `y`, `[B]`.

    Args:
        features: `[B, D]`.
        y: the predicted classes, int64 `[B]`.
        known: `[n, D]`.
        classes: the classes of the known features, int64 `[n]`; each class of `y` has at least one.
        bandwidth: see `log_density`.
        held_out: see `log_density`.
    """
    found = features.new_zeros(len(features))
    for k in y.unique().tolist():
        rows = (y == k).nonzero().flatten()
        densities = log_density(features[rows], known[classes == k], bandwidth, held_out=held_out)
        found = found.index_put((rows,), densities)
    return found


def best_bandwidth(known: Tensor, classes: Tensor) -> Tensor:
    """Return the bandwidth under which each known feature is likeliest among the others of its class, float64 `[]`.

    The candidates lie between 1/100 and 10 times the root-mean-square distance from the mean of the class, per
    dimension.
    """
    parts = [known[classes == k][:_MOST].double() for k in classes.unique().tolist()]
    parts = [part for part in parts if len(part) > 1]
    spread = torch.cat([part - part.mean(0) for part in parts]).square().mean().sqrt().clamp(min=1e-6)
    distances = [squared_distances(part, part).fill_diagonal_(math.inf) for part in parts]
    candidates = spread * torch.logspace(-2, 1, _CHOICES, dtype=torch.float64, device=known.device)
    likelihoods = []
    for width in candidates:
        each = [(-d / (2 * width**2)).logsumexp(1).sum() - len(d) * known.shape[1] * width.log() for d in distances]
        likelihoods.append(torch.stack(each).sum())
    return candidates[torch.stack(likelihoods).argmax()]
