"""Gradient saliency (Simonyan et al., Deep Inside Convolutional Networks, ICLR Workshops 2014); GRAD in ADV²."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.scores import input_gradient, reduce_channels
from underfire.catalog import card
from underfire.errors import InputError


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
    double_backward: str = "finite_difference",
) -> Tensor:
    """The gradient of the logit of class `y`, how much each pixel would change it: largest absolute value of a channel.

    Args:
        model: maps images `[B, C, H, W]` in `[0, 1]` to logits `[B, K]`.
        x: images.
        y: the class to explain, int64 `[B]`.
        absolute: take absolute values before the largest channel; if False, the signed sum over channels.
        channels: do not join the channels: signed, `[B, C, H, W]`.
        pool: average over squares of this side, which the ADV² authors do with 4.
        neuron: explain this inner neuron instead, `"LAYER:UNIT"` (see `parts.score`).
        double_backward: how the map's own derivative is taken, `"finite_difference"`, `"smooth"` or `"exact"` (see
            `parts.input_gradient`).

    Returns:
        The map, `[B, 1, ceil(H / pool), ceil(W / pool)]`, in logits per unit of the image.
    """
    if pool < 1:
        raise InputError(f"pool must be >= 1, got {pool}")
    g = input_gradient(model, x, y, double_backward, neuron)
    saliency = g if channels else reduce_channels(g, absolute)
    return F.avg_pool2d(saliency, pool, ceil_mode=True) if pool > 1 else saliency
