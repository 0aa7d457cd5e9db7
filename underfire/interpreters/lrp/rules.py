"""The rules of LRP for convolutions and linear layers, and the named choices of a rule for each layer.

A rule says how the relevance `R_k` of the outputs `z_k = Σ_j a_j w_jk + b_k` is shared among the inputs:
`R_j = Σ_k q_jk / Σ_j q_jk R_k`, with a share `q_jk` for each connection. It is written here as a function of the inputs
whose value is `p_k = Σ_j q_jk`, and whose gradient times the inputs gives the shares. With `c_k = R_k / z_k`, what is
passed back from the output is `c_k z_k / p_k`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Apply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A convolution or linear layer `(inputs, weight, bias) -> outputs`."""
Shares = list[tuple[Tensor, Tensor | float]]
"""Sums of shares `p`, each with the part of the relevance that it shares out."""


class Layer(NamedTuple):
    """A call of a convolution or linear layer.

    Attributes:
        a: its inputs.
        weight: its weight.
        bias: its bias, or None if it has none or biases get no relevance.
        z: its outputs, without the bias if biases get no relevance.
        apply: computes it.
        positive: whether the inputs are known not to be negative.
        beside: if it reads the image, inputs with all pixels at their least value, at their largest, and ones.
    """

    a: Tensor
    weight: Tensor
    bias: Tensor | None
    z: Tensor
    apply: Apply
    positive: bool
    beside: tuple[Tensor, ...]

    def part(self, sign: int) -> Tensor:
        """Return the sum of the positive `a_j w_jk`, and of the bias if it is positive; or of the negative ones."""
        bound = Tensor.clamp_min if sign > 0 else Tensor.clamp_max
        other = Tensor.clamp_max if sign > 0 else Tensor.clamp_min
        bias = None if self.bias is None else bound(self.bias, 0)
        if self.positive:
            return self.apply(self.a, bound(self.weight, 0), bias)
        above = self.a.clamp_min(0)
        below = self.a - above  # without a derivative at zero
        return self.apply(above, bound(self.weight, 0), bias) + self.apply(below, other(self.weight, 0), None)


@dataclass(frozen=True)
class Settings:
    """The numbers in the rules, and how they are applied.

    Attributes:
        epsilon: ε.
        gamma: γ.
        alpha: α; β is α - 1.
        bias: whether biases get relevance.
        smooth: whether the derivative of ε is left out.
    """

    epsilon: float
    gamma: float
    alpha: float
    bias: bool
    smooth: bool


def _epsilon(layer: Layer, _: Settings) -> Shares:
    """Share by `a_j w_jk` (LRP-ε; Bach et al., equation 58)."""
    return [(layer.z, 1.0)]


def _gamma(layer: Layer, settings: Settings) -> Shares:
    """Share by `a_j w_jk`, plus γ times that where it has the sign of `z_k` (LRP-γ; Montavon et al., 2019)."""
    z, positive = layer.z, layer.part(1)
    same_sign = torch.where(z > 0, positive, z - positive)
    return [(z + settings.gamma * same_sign, 1.0)]


def _z_plus(layer: Layer, _: Settings) -> Shares:
    """Share by `(a_j w_jk)⁺` (the z⁺ rule, or LRP-α1β0; Montavon et al., Deep Taylor Decomposition, 2017)."""
    return [(layer.part(1), 1.0)]


def _alpha_beta(layer: Layer, settings: Settings) -> Shares:
    """Share α by `(a_j w_jk)⁺` and -β by `(a_j w_jk)⁻` (LRP-αβ; Bach et al., equation 60)."""
    return [(layer.part(1), settings.alpha), (layer.part(-1), 1 - settings.alpha)]


def _box(layer: Layer, _: Settings) -> Shares:
    """Share by `a_j w_jk - l_j w_jk⁺ - h_j w_jk⁻` for inputs from l to h (the z^B rule; Montavon et al., 2017)."""
    low, high = layer.beside[:2]
    at_low = layer.apply(low, layer.weight.clamp_min(0), None)
    at_high = layer.apply(high, layer.weight.clamp_max(0), None)
    return [(layer.apply(layer.a, layer.weight, None) - at_low - at_high, 1.0)]


def _flat(layer: Layer, _: Settings) -> Shares:
    """Share equally (LRP-♭; Bach et al., 2016)."""
    return [(layer.apply(layer.beside[2], torch.ones_like(layer.weight), None), 1.0)]


def _w_square(layer: Layer, _: Settings) -> Shares:
    """Share by `w_jk²` (the w² rule; Montavon et al., Deep Taylor Decomposition, 2017)."""
    return [(layer.apply(layer.beside[2], layer.weight.square(), None), 1.0)]


Rule = Callable[[Layer, Settings], Shares]
#: Rules for any layer.
RULES: dict[str, Rule] = {"epsilon": _epsilon, "gamma": _gamma, "z_plus": _z_plus, "alpha_beta": _alpha_beta}
#: Rules for the layers that read the image; these also give a pixel that is zero its share.
PIXEL_RULES: dict[str, Rule] = RULES | {"box": _box, "flat": _flat, "w_square": _w_square}

#: Named choices of the rules for the layers that read the image, the other convolutions and the other linear layers.
#: Sources: Montavon et al., Deep Taylor Decomposition, 2017, and Layer-Wise Relevance Propagation: An Overview, 2019;
#: Kohlbrenner et al., Towards Best Practice in Explaining Neural Network Decisions with LRP, IJCNN 2020.
COMPOSITES: dict[str, tuple[str, str, str]] = {
    "epsilon": ("epsilon", "epsilon", "epsilon"),
    "z_plus": ("z_plus", "z_plus", "z_plus"),
    "deep_taylor": ("box", "z_plus", "z_plus"),
    "epsilon_plus": ("z_plus", "z_plus", "epsilon"),
    "epsilon_plus_flat": ("flat", "z_plus", "epsilon"),
    "epsilon_plus_box": ("box", "z_plus", "epsilon"),
    "epsilon_gamma_box": ("box", "gamma", "epsilon"),
    "epsilon_alpha2_beta1": ("alpha_beta", "alpha_beta", "epsilon"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha_beta", "epsilon"),
}
