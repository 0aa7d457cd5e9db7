"""Deconvolution (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.gradients import backward_to_input, reduce_channels
from underfire.catalog import card
from underfire.hooks import bypass_cache, deconv_relu
from underfire.validate import require_finite


@card(
    "interpreter",
    paper="Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def deconvnet(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    absolute: bool = True,
    channels: bool = False,
    neuron: str | None = None,
) -> Tensor:
    """Project the logit of class `y` back to the image; every ReLU passes back all positive values, whatever its input.

    Max-pooling passes values back to the place of its maximum; all other operations pass back gradients. The map of a
    ReLU network is therefore piecewise constant in the image, and constant without max-pooling: its derivative, taken
    by back-propagating twice, is zero.

    Returns:
        The map, `[B, 1, H, W]`, in logits per unit of the image.

    Raises:
        ModelError: the map is NaN. Unsupported: the model has no rectifier that can be seen (see
            `guided_backprop`).
    """
    with deconv_relu() as seen, bypass_cache(model):  # a pass that is shared with others would not follow the rule
        g = require_finite(backward_to_input(model, x, y, neuron, twice=True))
    seen.require_rectifiers("deconvnet")
    return g if channels else reduce_channels(g, absolute)
