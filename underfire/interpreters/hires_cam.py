"""HiResCAM (Draelos and Carin, Use HiResCAM instead of Grad-CAM for Faithful Explanations of CNNs, 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.feature_maps import weighted_maps
from underfire.catalog import card


@card(
    "interpreter",
    paper="Draelos and Carin, Use HiResCAM instead of Grad-CAM for Faithful Explanations of Convolutional Neural "
    "Networks, 2020",
    family="representation",
    differentiable=True,
    second_order=False,
)
def hires_cam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Sum feature maps, each multiplied place by place by the gradient of the logit of class `y`; signed.

    Where only linear layers follow the feature maps, the map plus the bias of the class sums to the logit. With global
    average pooling and one linear layer, it is `cam` divided by the number of places.

    Args:
        layer: one layer or several (see `grad_cam`).

    Returns:
        The map, `[B, 1, h, w]`, at the size of the layer's output; for a single layer in logits.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no
            grid that can be found.
    """

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return gradient

    return weighted_maps(model, x, y, layer, grid, weigh, signed=True)
