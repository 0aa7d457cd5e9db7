"""Compute regions of a map at several thresholds, and choose a threshold on images that are not used for the test.

Source of the three rules and their sweeps: Fong and Vedaldi, Interpretable Explanations of Black Boxes by Meaningful
Perturbation, ICCV 2017, section 5.4. Dabkowski and Gal, Real Time Image Saliency, NIPS 2017, use the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.errors import InputError, nearest
from underfire.measures.arrays import as_map
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
    """Return the region of each map at every threshold `alpha`, bool `[B, T, h, w]`; maps are scaled to [0, 1] first.

    The rule `"value"` takes the pixels of at least `alpha`. The rule `"mean"` takes the pixels of at least `alpha`
    times the mean of the map. The rule `"energy"` takes the smallest number of largest pixels whose sum is the share
    `alpha` of the sum of the map: at least one pixel, and all pixels that equal the smallest one taken.

    Args:
        m: maps `[B, 1, h, w]`.
        rule: `"value"`, `"mean"` or `"energy"`.
        alphas: the thresholds; None is `thresholds_of(rule)`.
    """
    thresholds = thresholds_of(rule) if alphas is None else alphas
    scaled = normalise(as_map(m)).flatten(1)
    limits = scaled.new_tensor(thresholds).expand(len(m), -1)
    if rule == "mean":
        limits = limits * scaled.mean(1, keepdim=True)
    elif rule == "energy":
        values = scaled.sort(dim=1, descending=True).values
        sums = values.cumsum(1)
        # The tolerance keeps rounding errors of the sum from adding all of the smallest pixels.
        last = torch.searchsorted(sums, limits * sums[:, -1:] * (1 - 1e-6))
        limits = values.gather(1, last.clamp_max(values.shape[1] - 1))
    return (scaled[:, None] >= limits[..., None]).unflatten(2, m.shape[2:])


def choose_on_other_half(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's score at the threshold that is best, on average, for the *other* half of the images.

    The halves are the images at even and at odd indices. So every image is tested, at a threshold that was chosen
    without this image.

    Args:
        scores: scores by image and threshold, `[B, T]`; higher is better, nan where undefined.

    Returns:
        The score `[B]` and the index of its threshold, int64 `[B]`; nan and -1 where the other half has no scores.
    """
    chosen, place = torch.full_like(scores[:, 0], torch.nan), torch.full_like(scores[:, 0], -1, dtype=torch.int64)
    for half in (0, 1):
        mean = scores[1 - half :: 2].nanmean(0)
        if len(scores) > 1 and not bool(mean.isnan().any()):
            best = mean.argmax()
            chosen[half::2], place[half::2] = scores[half::2, best], best
    return chosen, place
