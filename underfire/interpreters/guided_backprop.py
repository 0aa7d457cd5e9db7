"""Guided back-propagation (Springenberg et al., Striving for Simplicity, ICLR Workshops 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.scores import back_propagated, check_double_backward, reduce_channels, require_finite
from underfire.catalog import card
from underfire.hooks import bypass_cache, guided_relu

DOUBLE_BACKWARD = ("smooth", "exact")
WIDTH = 1.0  # wide gets further than narrow, and further than a difference


@card(
    "interpreter",
    paper="Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for Simplicity: The All Convolutional Net, "
    "ICLR Workshops 2015",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def guided_backprop(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    absolute: bool = True,
    channels: bool = False,
    neuron: str | None = None,
    double_backward: str = "smooth",
) -> Tensor:
    """The gradient of the logit of class `y`, but back through a ReLU goes only what is positive; the largest channel.

    It is a gradient where the model has no ReLU, ReLU6 or LeakyReLU.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        absolute: take absolute values before the largest channel; if False, the signed sum over channels.
        channels: do not join the channels: signed, `[B, C, H, W]`.
        neuron: explain this inner neuron instead, `"LAYER:UNIT"` (see `parts.score`).
        double_backward: how the map's own derivative is taken, by back-propagating twice in any case: `"exact"`, which
            sees no kinks and is zero for a ReLU network, or `"smooth"`, as if the steps of its ReLUs were smooth. A
            difference, as `gradient` takes it, would be wrong: this is not the gradient of anything.

    Returns:
        The map, `[B, 1, H, W]`, in logits per unit of the image.

    Raises:
        ModelError: what comes back is NaN. Unsupported: there is no such double_backward.
    """
    check_double_backward(double_backward, DOUBLE_BACKWARD)
    width = WIDTH if double_backward == "smooth" else None
    with guided_relu(width=width), bypass_cache(model):  # a pass shared with others would not be bent
        g = require_finite(back_propagated(model, x, y, neuron, twice=True))
    return g if channels else reduce_channels(g, absolute)
