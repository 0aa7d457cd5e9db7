"""FullGrad (Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.bias_terms import full_gradient
from underfire.attribution.feature_maps import resized
from underfire.attribution.gradients import check_double_backward
from underfire.catalog import card
from underfire.hooks import refuse_compiled
from underfire.validate import check_choice, require_finite

DOUBLE_BACKWARD = ("smooth", "exact")
RESCALE = ("layer", "channel")


@torch.no_grad()
def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the map of `full_grad`, and by which share of the logit the sum of all terms misses it."""
    terms = full_gradient(model, x, y, options.get("neuron"))
    gap = (terms.total() - terms.logit) / terms.logit
    return full_grad(model, x, y, **options), {"completeness_gap": gap.abs()}


@card(
    "interpreter",
    paper="Srinivas and Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019",
    family="back-propagation",
    differentiable=True,
    second_order=True,
    detailed=detailed,
)
def full_grad(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rescale: str = "layer",
    neuron: str | None = None,
    double_backward: str = "smooth",
) -> Tensor:
    """Add up the size of every term of the logit of class `y`: of the image, and of all biases at their places.

    The logit is the sum of the image times its gradient and of every bias times its gradient, at each place. The map is
    `ψ(x ∇f) + Σ ψ(b ∇_b f)` over layers and channels, with `ψ` the absolute value, rescaled to 0 … 1 and resized to the
    image (equation 3 of the paper). Terms without spatial dimensions, such as the terms of the last linear layer, are
    not shown.

    Args:
        rescale: what is rescaled together: `"layer"`, all channels of a layer (the authors' code), or `"channel"`, each
            alone (the paper).
        double_backward: `"exact"`, a derivative in which ReLUs have none, or `"smooth"`, with the derivative of a
            smooth and wide step for every ReLU; both back-propagate twice.

    Returns:
        The map, `[B, 1, H, W]`, never negative, without a unit.

    Raises:
        ModelError: the map is NaN. Unsupported: an option is unknown, or the model has no layer that can be seen.
    """
    refuse_compiled(model, "full_grad")
    check_double_backward(double_backward, DOUBLE_BACKWARD)
    check_choice(RESCALE, rescale=rescale)
    attached = torch.is_grad_enabled() and x.requires_grad
    terms = full_gradient(model, x, y, neuron, smooth=attached and double_backward == "smooth")
    places = (1, 2, 3) if rescale == "layer" else (2, 3)
    of_maps = (resized(rescaled(t, places), x.shape[2:]) for t in terms.of_maps)
    total = sum(of_maps, rescaled(terms.of_image, places))
    total = require_finite(total, "the map").to(x.dtype)
    return total if attached else total.detach()


def rescaled(term: Tensor, places: tuple[int, ...]) -> Tensor:
    """Return the sum over channels, `[B, 1, h, w]`, of the absolute values of a term `[B, C, h, w]` in 0 … 1."""
    if not term.numel():
        return term.abs().sum(1, keepdim=True)
    size = term.abs() - term.abs().amin(places, keepdim=True)
    largest = size.amax(places, keepdim=True)
    return (size / torch.where(largest > 0, largest, torch.ones_like(largest))).sum(1, keepdim=True)
