"""Operations without a useful gradient, such as rounding, with the gradient of another function (BPDA).

Source: Athalye, Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, ICML 2018, section 4.1.
"""

from __future__ import annotations

from torch import Tensor


def replaced(v: Tensor, value: Tensor) -> Tensor:
    """Return `value`, with the gradient of `v` (the straight-through estimator)."""
    return v + (value - v).detach()


def rounded(v: Tensor) -> Tensor:
    """Round to the nearest whole number, halves to even, with the gradient of the identity."""
    return replaced(v, v.round())
