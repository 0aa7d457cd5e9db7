"""Deconvolution (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.scores import back_propagated, reduce_channels, require_finite
from underfire.catalog import card
from underfire.hooks import bypass_cache, deconv_relu


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
    """The logit of class `y` projected back to the image: a ReLU rectifies what comes back, not where it was open.

    Max-pooling goes back to where its maximum was. All else goes back as a gradient does. Without max-pooling, the map
    of a ReLU network does not depend on the image, and neither does it otherwise but by jumps: its derivative, taken by
    back-propagating twice, is then zero.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        absolute: take absolute values before the largest channel; if False, the signed sum over channels.
        channels: do not join the channels: signed, `[B, C, H, W]`.
        neuron: explain this inner neuron instead, `"LAYER:UNIT"` (see `parts.score`).

    Returns:
        The map, `[B, 1, H, W]`, in logits per unit of the image.

    Raises:
        ModelError: what comes back is NaN.
    """
    with deconv_relu(), bypass_cache(model):  # a pass shared with others would not be bent
        g = require_finite(back_propagated(model, x, y, neuron, twice=True))
    return g if channels else reduce_channels(g, absolute)
