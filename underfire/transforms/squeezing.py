"""Squeezers: transforms that leave an attacker fewer different images, by rounding or smoothing (Xu et al., NDSS 2018).

Source: Xu, Evans and Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks, NDSS 2018,
section III; the names and constants are those of the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from underfire.errors import InputError, shown
from underfire.transforms.blur import median_blur
from underfire.transforms.non_local_means import non_local_means
from underfire.transforms.rounding import rounded

Squeezer = Callable[[Tensor], Tensor]
"""A function from images `[B, C, H, W]` in `[0, 1]` to squeezed images of the same shape."""

JOINT: dict[str, tuple[str, ...]] = {
    "mnist": ("bit_depth_1", "median_2"),
    "cifar10": ("bit_depth_5", "median_2", "non_local_means_13_3_2"),
    "imagenet": ("bit_depth_5", "median_2", "non_local_means_11_3_4"),
}
"""The squeezers that detect best together, by data set (Xu et al. 2018, section V)."""

BIT_DEPTHS = tuple(f"bit_depth_{bits}" for bits in range(1, 6))
MEDIANS = ("median_2", "median_3")
NON_LOCAL_MEANS = tuple(f"non_local_means_{sizes}" for sizes in ("11_3_2", "11_3_4", "13_3_2", "13_3_4"))
"""The settings that were compared in the paper and in ADV²: one of each kind, or none, makes a detector."""


def bit_depth(x: Tensor, bits: int) -> Tensor:
    """Round every value to one of `2^bits` levels, with the gradient of the identity (BPDA)."""
    steps = 2**bits - 1
    return rounded(x * steps) / steps


def squeezer(name: str) -> Squeezer:
    """Return the squeezer of a name: `bit_depth_BITS`, `median_SIDE` or `non_local_means_SEARCH_TEMPLATE_STRENGTH`.

    All have a gradient: a median that of the pixel that it takes, non-local means that of the exact mean, and bit depth
    that of the identity.

    Raises:
        InputError: there is no such squeezer, or a number is out of range.

    >>> import torch
    >>> squeezer("bit_depth_1")(torch.tensor([[[[0.2, 0.7]]]])).tolist()
    [[[[0.0, 1.0]]]]
    """
    found = re.fullmatch(r"(bit_depth|median|non_local_means)((?:_\d+)+)", name)
    numbers = [int(number) for number in found[2][1:].split("_")] if found else []
    kind = found[1] if found else ""
    if kind == "bit_depth" and len(numbers) == 1 and 1 <= numbers[0] <= 16:
        return partial(bit_depth, bits=numbers[0])
    if kind == "median" and len(numbers) == 1 and 1 <= numbers[0] <= 31:
        return partial(median_blur, side=numbers[0])
    if kind == "non_local_means" and len(numbers) == 3:
        search, template, strength = numbers
        if search % 2 and template % 2 and strength:
            return partial(non_local_means, search=search, template=template, strength=strength)
    raise InputError(
        f"unknown squeezer {shown(name)}; write bit_depth_5 (1 to 16 bits), median_2 (1 to 31 pixels), or "
        "non_local_means_13_3_2 (search window and neighbourhood, both odd, and strength)"
    )


def squeezers(names: str | Sequence[str]) -> dict[str, Squeezer]:
    """Return squeezers by name; `names` is a list of names, one name, or a key of `JOINT`.

    Raises:
        InputError: there is no such squeezer, none is given, or one is given twice.
    """
    if not isinstance(names, (str, list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError(f"squeezers must be names, such as ('bit_depth_5', 'median_2'), got {shown(names)}")
    listed = [names] if isinstance(names, str) else list(names)
    listed = list(JOINT[listed[0]]) if len(listed) == 1 and listed[0] in JOINT else listed
    if not listed or len(set(listed)) < len(listed):
        raise InputError(f"squeezers must be at least one name, and none twice, got {shown(listed)}")
    return {name: squeezer(name) for name in listed}
