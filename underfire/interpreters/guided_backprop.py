"""Guided back-propagation (Springenberg et al., Striving for Simplicity, ICLR Workshops 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from underfire.attribution.gradients import backward_to_input, check_double_backward, reduce_channels
from underfire.catalog import card
from underfire.hooks import bypass_cache, guided_relu
from underfire.validate import require_finite

DOUBLE_BACKWARD = ("smooth", "exact")
WIDTH = 1.0  # of the smooth step; attacks on the map succeed more often with it than with a narrower step


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
    """Project the logit of class `y` back to the image; ReLUs pass back positive values where their input is positive.

    The rule acts on rectifiers in every form: ReLU, ReLU6, LeakyReLU, PReLU, bounds and products (see
    `hooks.rectifiers`). Other activations, such as GELU, pass back their gradient; a model that has only those is
    refused.

    Args:
        double_backward: `"exact"`, a derivative that is zero for a ReLU network, or `"smooth"`, with the derivative of
            a smooth step for every ReLU; both back-propagate twice. A finite difference, as in `gradient`, would be
            wrong, because the map is not the gradient of a function.

    Returns:
        The map, `[B, 1, H, W]`, in logits per unit of the image.

    Raises:
        ModelError: the map is NaN. Unsupported: the model has no rectifier that can be seen, or
            `double_backward` is unknown.
    """
    check_double_backward(double_backward, DOUBLE_BACKWARD)
    width = WIDTH if double_backward == "smooth" else None
    with guided_relu(width=width) as seen, bypass_cache(model):  # a shared pass would not follow the rule
        g = require_finite(backward_to_input(model, x, y, neuron, twice=True))
    seen.require_rectifiers("guided_backprop")
    return g if channels else reduce_channels(g, absolute)
