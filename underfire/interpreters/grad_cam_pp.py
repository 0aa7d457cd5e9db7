"""Grad-CAM++ (Chattopadhay et al., Generalized Gradient-based Visual Explanations, WACV 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.feature_maps import weighted_maps
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
    """Feature maps weighted by the positive gradients, each place so that it counts as much as a whole object.

    The paper explains `Y = exp(S)` of the logit `S`, whose first three derivatives to a feature map are, where `S` is
    piecewise linear in it, `exp(S)` times the powers of the gradient `g` of `S`. That factor is common to all channels
    and left out. The map is `ReLU(Σ_k w_k A^k)` with (its equations 5, 6 and 19, `Σ A` over the places of channel k)

        w_k = Σ_ij α_ij ReLU(g_ij)        α_ij = g_ij² / (2 g_ij² + Σ A · g_ij³) = 1 / (2 + g_ij Σ A)

    Only features that are not negative, as after a ReLU, keep α finite. Where `g_ij Σ A` is negative it counts as zero,
    so that no weight can explode or change its sign.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        layer: whose output is weighted, one layer or several, see `grad_cam`; None is the last layer with space.
        grid: rows and columns of a transformer's tokens; None finds them.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: its output has no space, or its tokens
            have no grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        total = features.sum((2, 3), keepdim=True)
        alpha = 1 / (2 + (gradient * total).clamp_min(0))
        return (alpha * gradient.clamp_min(0)).sum((2, 3), keepdim=True)

    return weighted_maps(model, x, y, layer, grid, weigh)
