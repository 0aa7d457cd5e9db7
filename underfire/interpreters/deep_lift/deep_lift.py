"""DeepLIFT (Shrikumar et al., Learning Important Features Through Propagating Activation Differences, ICML 2017)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from underfire.attribution.gradients import differentiable_input
from underfire.attribution.scores import score
from underfire.catalog import card
from underfire.errors import Unsupported
from underfire.hooks import bypass_cache, folded, refuse_compiled, twice_differentiable
from underfire.interpreters.deep_lift.multipliers import Multipliers
from underfire.interpreters.integrated_gradients import baselines, quadrature_error
from underfire.validate import check_choice, require_finite

RULES = ("rescale", "reveal_cancel")


def detailed(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the map of `deep_lift`, and by which share its sum misses the change of the logit."""
    m = deep_lift(model, x, y, **options)
    shown = m.detach().sum(1, keepdim=True)
    same = {name: options[name] for name in ("baseline", "neuron") if name in options}
    return m, {"completeness_gap": quadrature_error(model, x, y, shown, **same)}


@card(
    "interpreter",
    paper="Shrikumar, Greenside and Kundaje, Learning Important Features Through Propagating Activation Differences, "
    "ICML 2017",
    family="back-propagation",
    differentiable=True,
    second_order=True,
    complete=True,
    detailed=detailed,
)
def deep_lift(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    baseline: str | Tensor = "black",
    rule: str = "rescale",
    channels: bool = False,
    neuron: str | None = None,
) -> Tensor:
    """Share the change of the logit of class `y` from a baseline among the pixels, operation by operation; signed.

    The map sums to `f(x) - f(x')`. The paper has rules for activations, maxima and linear layers; those for products,
    softmax, normalisation and attention, with which the sum is right for other networks too, are in
    `interpreters.deep_lift.multipliers`. The derivative of the map is exact.

    Args:
        baseline: x', `"black"`, `"white"`, `"mean"`, `"blur"`, `"many"` or a tensor (see
            `integrated_gradients.baselines`); the maps of several baselines are averaged.
        rule: for activations: `"rescale"`, the slope of the secant, or `"reveal_cancel"`, which treats the positive and
            the negative contributions to an activation apart, if a convolution or a linear layer comes just before it.
        channels: return the contribution of every channel, `[B, C, H, W]`.

    Returns:
        The map, `[B, 1, H, W]`, in logits.

    Raises:
        InputError: the baseline is wrong. ModelError: the map is NaN. Unsupported: the rule is unknown, or the model
            has no layer that can be seen.
    """
    refuse_compiled(model, "deep_lift")
    check_choice(RULES, rule=rule)
    starts = baselines(x, baseline)
    alike = isinstance(baseline, str) and baseline in ("black", "white")  # one pass serves all images
    with differentiable_input(model, x) as (point, attached), bypass_cache(model):
        batch_norms = folded(model, x) if neuron is None else nullcontext()
        with batch_norms, twice_differentiable() if attached else nullcontext():
            shown = [
                contributions(model, point, y, start[:1] if alike else start, rule, neuron, attached)
                for start in starts
            ]
        mean = require_finite(torch.stack(shown).mean(0), "the map").to(x.dtype)
    mean = mean if channels else mean.sum(1, keepdim=True)
    return mean if attached else mean.detach()


def contributions(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, rule: str, neuron: str | None, attached: bool
) -> Tensor:
    """Return the contribution of every entry of `x` `[B, C, H, W]` for one baseline `[B, C, H, W]` or `[1, C, H, W]`.

    Raises:
        Unsupported: the model has no layer that can be seen.
    """
    follows = attached and start.requires_grad  # a blur follows the image
    signs = rule == "reveal_cancel"
    origin = start if follows else start.detach().clone().requires_grad_()
    with Multipliers(None, signs=signs, attached=follows) as reference:
        score(model, origin, y[: len(origin)], neuron)
    with Multipliers(reference, signs=signs, attached=attached) as block:
        total = require_finite(score(model, x, y, neuron), "the model's output").sum()
        if not block.seen:
            raise Unsupported(
                "deep_lift needs layers that can be seen, and this model has none; use integrated_gradients"
            )
        (multiplier,) = torch.autograd.grad(total, x, create_graph=attached, retain_graph=attached)
    return (x - start) * multiplier
