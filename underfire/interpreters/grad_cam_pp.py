"""Grad-CAM++ (Chattopadhay et al., Generalized Gradient-based Visual Explanations, WACV 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.feature_maps import positive_part, weighted_maps
from underfire.catalog import card


@card(
    "interpreter",
    paper="Chattopadhay, Sarkar, Howlader and Balasubramanian, Grad-CAM++, WACV 2018",
    family="representation",
    differentiable=True,
    second_order=False,
)
def grad_cam_pp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Sum feature maps, weighted by positive gradients such that large and small objects count alike.

    The paper explains `Y = exp(S)` of the logit `S`. Where `S` is piecewise linear in a feature map, the first three
    derivatives of `Y` are `exp(S)` times the powers of the gradient `g` of `S`. The factor `exp(S)` is common to all
    channels and left out. The map is `ReLU(Σ_k w_k A^k)`, where (equations 5, 6 and 19 of the paper; `Σ A` is the sum
    of `A^k` over all places)

        w_k = Σ_ij α_ij ReLU(g_ij)        α_ij = g_ij² / (2 g_ij² + Σ A · g_ij³) = 1 / (2 + g_ij Σ A)

    α is sure to be finite only for features that are not negative, as after a ReLU. A negative `g_ij Σ A` counts as
    zero, so that no weight explodes or changes its sign.

    Args:
        layer: one layer or several (see `grad_cam`).

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no
            grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        total = features.sum((2, 3), keepdim=True)
        alpha = 1 / (2 + positive_part(gradient * total))
        return (alpha * positive_part(gradient)).sum((2, 3), keepdim=True)

    return weighted_maps(model, x, y, layer, grid, weigh)
