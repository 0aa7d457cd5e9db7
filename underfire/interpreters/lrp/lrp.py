"""Layer-wise relevance propagation (Bach et al., On Pixel-Wise Explanations by LRP, PLOS ONE 2015)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from underfire.attribution.gradients import check_double_backward, differentiable_input
from underfire.attribution.scores import score
from underfire.catalog import card
from underfire.domains import domain_of
from underfire.errors import InputError, Unsupported, nearest
from underfire.hooks import Entrance, bypass_cache, folded, refuse_compiled, secant_relu, twice_differentiable
from underfire.interpreters.lrp.propagation import Propagation
from underfire.interpreters.lrp.rules import COMPOSITES, PIXEL_RULES, RULES, Rule, Settings
from underfire.validate import at_least, require_finite

DOUBLE_BACKWARD = ("smooth", "exact")
WIDTH = 1.0  # of the smooth step of a ReLU (see `guided_backprop`)


@card(
    "interpreter",
    paper="Bach, Binder, Montavon, Klauschen, Müller and Samek, On Pixel-Wise Explanations for Non-Linear Classifier "
    "Decisions by Layer-Wise Relevance Propagation, PLOS ONE 2015",
    family="back-propagation",
    differentiable=True,
    second_order=True,
)
def lrp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    composite: str = "epsilon_plus_flat",
    pixels: str | None = None,
    convolutions: str | None = None,
    linear: str | None = None,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    bias: bool = True,
    channels: bool = False,
    neuron: str | None = None,
    double_backward: str = "smooth",
) -> Tensor:
    """Share the logit of class `y` among the pixels, layer by layer, each by a rule; signed.

    The relevance of the normalised image sums to the logit, but for what biases and `epsilon` take. Batch norms are
    folded into the convolutions before them, unless a neuron is explained. How other operations pass relevance on is
    said in `interpreters.lrp.propagation`; the rules are in `interpreters.lrp.rules`.

    Args:
        composite: a choice of rules by name: `"epsilon"`, `"z_plus"`, `"deep_taylor"`, `"epsilon_plus"`,
            `"epsilon_plus_flat"`, `"epsilon_plus_box"`, `"epsilon_gamma_box"`, `"epsilon_alpha2_beta1"` or
            `"epsilon_alpha2_beta1_flat"`.
        pixels: another rule for the layers that read the image: `"epsilon"`, `"gamma"`, `"z_plus"`, `"alpha_beta"`,
            `"box"` (the z^B rule for pixels from 0 to 1), `"flat"` or `"w_square"`.
        convolutions: another rule for the other convolutions, one of the first four.
        linear: another rule for the other linear layers, one of the first four.
        epsilon: added to every denominator, away from zero.
        gamma: γ of the rule `"gamma"`.
        alpha: α of the rule `"alpha_beta"`, at least 1; β is α - 1.
        bias: let biases take a share of the relevance, as inputs of one would; without it, the relevance is conserved.
        channels: return the relevance of every channel, `[B, C, H, W]`.
        double_backward: `"exact"`, the derivative of the map, in which a ReLU has none, or `"smooth"`, with the
            derivative of a smooth and wide step for every ReLU; both back-propagate twice.

    Returns:
        The map, `[B, 1, H, W]`, in logits.

    Raises:
        InputError: an option is wrong. ModelError: the map is NaN. Unsupported: the model has no layer that can be
            seen.
    """
    refuse_compiled(model, "lrp")
    check_double_backward(double_backward, DOUBLE_BACKWARD)
    rules = chosen_rules(composite, pixels, convolutions, linear)
    at_least(0, gamma=gamma)
    at_least(1, alpha=alpha)
    if not epsilon > 0:
        raise InputError(f"epsilon must be positive, such as 1e-6, got {epsilon}")
    width = WIDTH if double_backward == "smooth" else None
    with differentiable_input(model, x) as (point, attached), bypass_cache(model):
        entrance = Entrance(point, domain_of(model).box(x) if rules[0] not in RULES.values() else None)
        settings = Settings(epsilon, gamma, alpha, bias=bias, smooth=width is not None)
        block = Propagation(rules, settings, entrance, attached=attached)
        batch_norms = folded(model, x) if neuron is None else nullcontext()
        twice = twice_differentiable() if attached else nullcontext()
        with batch_norms, twice, secant_relu(width=width), block:
            total = require_finite(score(model, point, y, neuron), "the model's output").sum()
            if not block.seen:
                raise Unsupported(
                    "lrp needs convolutions or linear layers that can be seen, and this model has none; use "
                    "gradient_input or integrated_gradients"
                )
            inputs = [t for entered in entrance.found for t in (entered.x, *entered.beside)]
            passed: tuple[Tensor | None, ...] = torch.autograd.grad(
                total, inputs, create_graph=attached, allow_unused=True
            )
        relevance = sum((t * c for t, c in zip(inputs, passed, strict=True) if c is not None), torch.zeros_like(point))
        relevance = require_finite(relevance, "the relevance").to(x.dtype)
    shown = relevance if channels else relevance.sum(1, keepdim=True)
    return shown if attached else shown.detach()


def chosen_rules(
    composite: str, pixels: str | None, convolutions: str | None, linear: str | None
) -> tuple[Rule, Rule, Rule]:
    """Return the rules for layers that read the image, other convolutions and other linear layers.

    Raises:
        InputError: a name is unknown.
    """
    if composite not in COMPOSITES:
        raise InputError(f"unknown composite {composite!r}; {nearest(composite, COMPOSITES)}")
    of_pixels, of_convolutions, of_linear = COMPOSITES[composite]
    return (
        _rule("pixels", pixels or of_pixels, PIXEL_RULES),
        _rule("convolutions", convolutions or of_convolutions, RULES),
        _rule("linear", linear or of_linear, RULES),
    )


def _rule(place: str, name: str, choices: dict[str, Rule]) -> Rule:
    if name not in choices:
        raise InputError(f"unknown rule {name!r} for {place}; {nearest(name, choices)}")
    return choices[name]
