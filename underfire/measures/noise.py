"""Noise that makes a classifier wrong as often as wanted, and how far the maps move under it.

Source: Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020, section 6.2: an interpreter that
follows the classifier shows other maps where noise changes the class. The paper has normal and uniform noise that
causes 3 % and 30 % of misclassification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from underfire.errors import DataError, InputError
from underfire.measures.maps import map_l1
from underfire.validate import check_choice, default_generator

Kind = Literal["normal", "uniform"]
_CHUNK = 64


def noisy(x: Tensor, scale: float, kind: Kind = "normal", generator: Generator | None = None) -> Tensor:
    """Return images with noise, clipped to `[0, 1]`.

    Args:
        x: images `[B, C, H, W]` in `[0, 1]`.
        scale: standard deviation of normal noise, or the largest value, either way, of uniform noise.
        kind: the distribution.
        generator: the source of the noise.

    Raises:
        InputError: the scale is negative or not finite. Unsupported: the distribution is unknown.
    """
    check_choice(("normal", "uniform"), kind=kind)
    if not 0 <= scale < float("inf"):
        raise InputError(f"the scale of noise must be at least 0 and finite, got {scale}")
    generator = default_generator(generator, x.device)
    draw = torch.randn if kind == "normal" else torch.rand
    noise = draw(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x + scale * (noise if kind == "normal" else 2 * noise - 1)).clamp(0, 1)


@torch.no_grad()
def noise_level(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    share: float,
    kind: Kind = "normal",
    *,
    largest: float = 2.0,
    halvings: int = 12,
    seed: int = 0,
) -> float:
    """Return the scale of noise at which a share of the images that are classified correctly is not any more.

    It is found by bisection with the same draw of noise at every scale, and is the smallest tried that reaches the
    share.

    Args:
        model: `(x) -> logits [B, K]`, in evaluation mode.
        x: images `[n, C, H, W]`.
        y: labels, int64 `[n]`.
        share: the share to reach, such as 0.03 or 0.3.
        kind: the distribution of the noise.
        largest: the largest scale.
        halvings: number of bisections; the scale is exact to `largest / 2^halvings`.
        seed: the seed of the noise.

    Raises:
        InputError: the share is not in (0, 1). DataError: no image is classified correctly, or even the largest scale
            does not reach the share.
    """
    if not 0 < share < 1:
        raise InputError(f"the share of misclassified images must be in (0, 1), such as 0.03, got {share}")

    def answers(images: Tensor) -> Tensor:
        return torch.cat([model(part).argmax(1) for part in images.split(_CHUNK)])

    right = answers(x) == y
    if not bool(right.any()):
        raise DataError("no image is classified correctly, so that noise can make none wrong")
    x, y = x[right], y[right]

    def wrong(scale: float) -> float:
        generator = Generator(x.device).manual_seed(seed)
        return float((answers(noisy(x, scale, kind, generator)) != y).double().mean())

    if (most := wrong(largest)) < share:
        raise DataError(f"noise of {largest:g} makes {most:.1%} of the images wrong, fewer than {share:.1%}")
    low, high = 0.0, largest
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if wrong(middle) >= share else (middle, high)
    return high


@torch.no_grad()
def noise_sensitivity(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    interpreter: Callable[..., Tensor],
    scale: float,
    kind: Kind = "normal",
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return how far the map of the predicted class moves under noise, `map_l1` `[B]`, and whether the class changed.

    Args:
        model: `(x) -> logits [B, K]`.
        x: images `[B, C, H, W]`.
        interpreter: `(model, x, y) -> map [B, 1, h, w]`.
        scale: scale of the noise, such as `noise_level` returns.
        kind: the distribution of the noise.
        generator: the source of the noise.
    """
    changed = noisy(x, scale, kind, generator)
    before, after = model(x).argmax(1), model(changed).argmax(1)
    gap = map_l1(interpreter(model, x, before), interpreter(model, changed, after))
    return gap, before != after
