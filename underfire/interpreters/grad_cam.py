"""Gradient-weighted class activation mapping (Selvaraju et al., Grad-CAM, ICCV 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.feature_maps import weighted_maps
from underfire.catalog import card


@card(
    "interpreter",
    paper="Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, Grad-CAM, ICCV 2017",
    family="representation",
    differentiable=True,
    second_order=False,
)
def grad_cam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Sum feature maps, weighted by the mean gradient of the logit of class `y` with respect to each; clip at zero.

    Args:
        layer: one layer or several; the maps of several are each divided by their largest value, resized to the largest
            grid and averaged. None is the last spatial layer; for a transformer, the last on whose patch tokens the
            logits depend.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative; for a single layer in logits.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no
            grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean((2, 3), keepdim=True)

    return weighted_maps(model, x, y, layer, grid, weigh)
