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
    """Feature maps weighted by the mean gradient of the logit of class `y` to them; negative parts cut off.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        layer: whose output is weighted, one layer or several, whose maps are then each divided by their largest value,
            resized to the largest grid and averaged; None is the last layer with space, of a transformer the last one
            whose patches the logits depend on.
        grid: rows and columns of a transformer's tokens; None finds them.

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output, never negative; of one layer in logits.

    Raises:
        ModelError: there is no such layer (the message lists them), or the gradient is NaN. Unsupported: its output has
            no space, or its tokens have no grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean((2, 3), keepdim=True)

    return weighted_maps(model, x, y, layer, grid, weigh)
