"""Regions of a map at several thresholds, and a threshold that is chosen on other images than it is tested on.

The three rules and their sweeps are those of Fong and Vedaldi, Interpretable Explanations of Black Boxes by Meaningful
Perturbation, ICCV 2017, section 5.4, which Dabkowski and Gal, Real Time Image Saliency, NIPS 2017, follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.errors import InputError, nearest
from underfire.measures.arrays import is_map
from underfire.measures.maps import normalise

SWEEPS: dict[str, tuple[float, ...]] = {
    "value": tuple(i / 20 for i in range(20)),
    "mean": tuple(i / 2 for i in range(21)),
    "energy": tuple(i / 20 for i in range(20)),
}


def thresholds_of(rule: str) -> tuple[float, ...]:
    """Return the thresholds that a rule tries.

    Raises:
        InputError: there is no such rule.
    """
    if rule not in SWEEPS:
        raise InputError(f"unknown rule {rule!r}; {nearest(rule, SWEEPS)}")
    return SWEEPS[rule]


def regions(m: Tensor, rule: str, alphas: Sequence[float] | None = None) -> Tensor:
    """Return the pixels of each map above every threshold, bool `[B, T, h, w]`, after the map is scaled to [0, 1].

    `"value"` takes pixels of at least `alpha`, `"mean"` those of at least `alpha` times the mean of the map, and
    `"energy"` the smallest number of largest pixels that hold the share `alpha` of the map's sum: at least one, and all
    pixels that are equal to the smallest of them.

    Args:
        m: maps `[B, 1, h, w]`.
        rule: one of the three.
        alphas: the thresholds; None is the rule's `thresholds_of`.
    """
    tried = thresholds_of(rule) if alphas is None else alphas
    scaled = normalise(is_map(m)).flatten(1)
    limits = scaled.new_tensor(tried).expand(len(m), -1)
    if rule == "mean":
        limits = limits * scaled.mean(1, keepdim=True)
    elif rule == "energy":
        values = scaled.sort(dim=1, descending=True).values
        held = values.cumsum(1)
        # The tolerance keeps rounding in the sum from adding all the smallest pixels.
        last = torch.searchsorted(held, limits * held[:, -1:] * (1 - 1e-6))
        limits = values.gather(1, last.clamp_max(values.shape[1] - 1))
    return (scaled[:, None] >= limits[..., None]).unflatten(2, m.shape[2:])


def choose_on_other_half(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's score at the threshold that is best, on average, for the *other* half of the images.

    The halves are the even and the odd places. Every image is tested, and none helps to choose its own threshold.

    Args:
        scores: scores by image and threshold, `[B, T]`; higher is better, nan where undefined.

    Returns:
        The score `[B]` and the place of its threshold, int64 `[B]`; nan and -1 where the other half is undefined.
    """
    chosen, place = torch.full_like(scores[:, 0], torch.nan), torch.full_like(scores[:, 0], -1, dtype=torch.int64)
    for half in (0, 1):
        mean = scores[1 - half :: 2].nanmean(0)
        if len(scores) > 1 and not bool(mean.isnan().any()):
            best = mean.argmax()
            chosen[half::2], place[half::2] = scores[half::2, best], best
    return chosen, place
