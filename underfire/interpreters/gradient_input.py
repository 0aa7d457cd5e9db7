"""Gradient times input (Shrikumar et al., Not Just a Black Box, 2016; Ancona et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from underfire.attribution.gradients import input_gradient
from underfire.catalog import card


@card(
    "interpreter",
    paper="Shrikumar, Greenside, Shcherbina and Kundaje, Not Just a Black Box, 2016",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def gradient_input(
    model: nn.Module, x: Tensor, y: Tensor, *, neuron: str | None = None, double_backward: str = "finite_difference"
) -> Tensor:
    """Multiply the image by the gradient of the logit of class `y` and sum over channels; signed.

    For a network that is linear in `x` without bias, the map sums to the logit.

    Returns:
        The map, `[B, 1, H, W]`, in logits.

    Raises:
        ModelError: the gradient is NaN. Unsupported: `double_backward` is unknown.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    g = input_gradient(model, x, y, double_backward, neuron)
    return ((x if attached else x.detach()) * g).sum(1, keepdim=True)
