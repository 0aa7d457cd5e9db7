"""Gradient saliency (Simonyan et al., Deep Inside Convolutional Networks, ICLR Workshops 2014); GRAD in ADV²."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.gradients import input_gradient, reduce_channels
from underfire.attribution.variants import OUTPUTS
from underfire.catalog import card
from underfire.errors import InputError
from underfire.validate import check_choice


@card(
    "interpreter",
    paper="Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks, ICLR Workshops 2014",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def gradient(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    absolute: bool = True,
    channels: bool = False,
    pool: int = 1,
    neuron: str | None = None,
    output: str = "logit",
    double_backward: str = "finite_difference",
) -> Tensor:
    """Return the gradient of the output for class `y`, for each pixel its largest absolute value over channels.

    Args:
        pool: average the map over squares of this side, in pixels; the authors of ADV² use 4.
        output: `"logit"`, as in the paper, or `"probability"`, as in that of ADV² (equation 5); the gradient of a
            probability becomes small where the model is certain, and it has a part of every class.

    Returns:
        The map, `[B, 1, ceil(H / pool), ceil(W / pool)]`, in the output per unit of the image.

    Raises:
        InputError: `pool` is below 1. ModelError: the gradient is NaN. Unsupported: `double_backward` or `output` is
            unknown.
    """
    if pool < 1:
        raise InputError(f"pool must be >= 1, got {pool}")
    check_choice(OUTPUTS, output=output)
    g = input_gradient(model, x, y, double_backward, neuron, output)
    saliency = g if channels else reduce_channels(g, absolute)
    return F.avg_pool2d(saliency, pool, ceil_mode=True) if pool > 1 else saliency
