"""Guided Grad-CAM (Selvaraju et al., Grad-CAM, ICCV 2017, section 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.feature_maps import resized
from underfire.attribution.gradients import reduce_channels
from underfire.catalog import card
from underfire.interpreters.grad_cam import grad_cam
from underfire.interpreters.guided_backprop import guided_backprop


@card(
    "interpreter",
    paper="Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, Grad-CAM, ICCV 2017",
    family="representation",
    differentiable=True,
    second_order=True,
)
def guided_grad_cam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str | tuple[str, ...] | None = None,
    grid: tuple[int, int] | None = None,
    absolute: bool = True,
    double_backward: str = "smooth",
) -> Tensor:
    """Multiply the map of guided back-propagation by the Grad-CAM map, resized bilinearly to the image.

    Args:
        double_backward: of guided back-propagation, `"smooth"` or `"exact"` (see `guided_backprop`).

    Returns:
        The map, `[B, 1, H, W]`, in squared logits per unit of the image.

    Raises:
        ModelError: there is no such layer, or the gradient is NaN. Unsupported: the layer has no space, or tokens of no
            grid that can be found, or `double_backward` is unknown.
    """
    heat = grad_cam(model, x, y, layer=layer, grid=grid)
    guided = guided_backprop(model, x, y, channels=True, double_backward=double_backward)
    return reduce_channels(resized(heat, x.shape[2:]) * guided, absolute)
