"""Terms that move inner layers of the network away from what they are on the clean image, for attacks that transfer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from underfire.ascent.objective import Objective, Prepared, Start, Term, objective
from underfire.ascent.step import Step
from underfire.attribution.feature_maps import layouts_of, positive_sum, resized
from underfire.errors import InputError, Unsupported
from underfire.hooks import Layout, activations, feature_pyramid, layout_of
from underfire.validate import at_least, at_least_one, check_choice, check_classes, per_sample

_ZERO = 1e-12  # a feature of at most this size counts as zero, where the power has no derivative
Layers = str | tuple[str, ...] | None


def feature_distance(weight: float = 0.005, power: float = 0.5, layers: Layers = None) -> Objective:
    """Maximise the distance between the features of the image and those of the clean one (TAP).

    The term is `sum_d |P(L_d(x')) - P(L_d(x))|^2` over the layers `d`, with `P(a) = sign(a) |a|^power`. Where a view
    changes the size of the image, its feature maps are resized.

    Args:
        weight: factor of the term, the paper's lambda.
        power: exponent of the features, the paper's alpha.
        layers: one name or several; None is the last layer of every spatial size. The paper takes all layers.

    Raises:
        InputError: an argument is out of its range. On a call: ModelError: there is no such layer. Unsupported: no
            layer has spatial dimensions.

    Source: Zhou et al., Transferable Adversarial Perturbations, ECCV 2018, (4) and (5).
    """
    at_least(0, weight=weight)
    if not 0 < power <= 1:
        raise InputError(f"power must be in (0, 1], got {power:g}")

    def prepare(start: Start) -> Term:
        names = _names(layers) or tuple(level.layer for level in feature_pyramid(start.model, start.x))
        with torch.no_grad():
            outputs = activations(start.model, start.x, names)[1]
        layouts = {name: _layout(start, name, output) for name, output in outputs.items()}
        maps = {name: _maps(output, layouts[name]) for name, output in outputs.items()}
        clean = {name: _power(features, power)[0] for name, features in maps.items()}

        def term(step: Step) -> Tensor:
            total = torch.zeros_like(step.logits[:, 0])
            for name, output in activations(step.model, step.x, names)[1].items():
                features, before = _maps(output, layouts[name]), clean[name][step.index]
                if features.shape != before.shape:
                    features = resized(features, before.shape[2:])
                total = total + _PowerDistance.apply(features, before, power).to(total.dtype)
            return total

        return term

    return weight * objective(Prepared(prepare), first_order=True)


def smooth_change(weight: float = 0.01, pool: int = 3) -> Objective:
    """Maximise the mean change over squares of the image, so that the change is smooth (TAP).

    The term is the sum of the absolute values of `x' - x`, averaged over squares of `pool` pixels that do not overlap.

    Args:
        weight: factor of the term, the paper's eta.
        pool: side of the squares in pixels.

    Source: Zhou et al., Transferable Adversarial Perturbations, ECCV 2018, (6).
    """
    at_least(0, weight=weight)
    at_least_one(pool=pool)

    def prepare(start: Start) -> Term:
        if start.x.dim() != 4 or min(start.x.shape[2:]) < pool:
            raise InputError(f"smooth_change needs images of at least {pool} x {pool}, got {tuple(start.x.shape[1:])}")

        def term(step: Step) -> Tensor:
            return F.avg_pool2d(step.x_adv - start.x[step.index], pool).abs().flatten(1).sum(1)

        return term

    return weight * objective(Prepared(prepare), first_order=True)


def tap_terms(
    weight: float = 0.005, power: float = 0.5, layers: Layers = None, smooth_weight: float = 0.01, pool: int = 3
) -> Objective:
    """Maximise the distance between features and the smooth part of the change: the two terms that TAP adds.

    Args:
        weight: factor of the distance between the features, the paper's lambda.
        power: exponent of the features, the paper's alpha.
        layers: names of the layers; None is the last layer of every spatial size. The paper takes all layers.
        smooth_weight: factor of the smooth part of the change, the paper's eta.
        pool: side of the squares over which the change is averaged, in pixels.

    Source: Zhou, Hou, Chen, Tang, Huang, Gan and Yang, Transferable Adversarial Perturbations, ECCV 2018.
    """
    return feature_distance(weight, power, layers) + smooth_change(smooth_weight, pool)


def attention_distance(weight: float = 1.0, layers: Layers = None, output: str = "logit") -> Objective:
    """Maximise the distance between the attention maps of class `y` and those of the clean image (ATA).

    The term is `sum_k |H_k(x') - H_k(x)|_2` over the layers `k`. `H_k = ReLU(sum_c a_c A_c)` is the Grad-CAM map of
    class `y`: the weight `a_c` of a feature map `A_c` is the mean gradient of the class with respect to it. The weights
    depend on the image, and the gradient passes through them. Where a view changes the size of the image, the maps are
    resized. At the clean image itself, where the length has no gradient, it is zero.

    Args:
        weight: factor of the term, the paper's lambda. Its value in the paper is not known to us.
        layers: names of the layers; None is the last spatial layer.
        output: `"logit"` or `"probability"`: the number of class `y` whose gradient is the weight.

    Raises:
        Unsupported: `output` is unknown. On a call: ModelError: there is no such layer. Unsupported: a layer has no
            space, or the logits do not depend on it.

    Source: Wu, Su, Chen, Zhao, King, Lyu and Tai, Boosting the Transferability of Adversarial Samples via Attention,
        CVPR 2020.
    """
    at_least(0, weight=weight)
    check_choice(("logit", "probability"), output=output)

    def prepare(start: Start) -> Term:
        layouts = layouts_of(start.model, start.x, layers)
        clean = attention_maps(start.model, start.x, start.y, layouts, output, checked=False)

        def term(step: Step) -> Tensor:
            total = torch.zeros_like(step.logits[:, 0])
            for heat, every in zip(attention_maps(step.model, step.x, step.y, layouts, output), clean, strict=True):
                before = every[step.index]
                gap = (heat if heat.shape == before.shape else resized(heat, before.shape[2:])) - before
                square = gap.square().flatten(1).sum(1)
                total = total + torch.where(square > 0, square, 1).sqrt().mul(square > 0).to(total.dtype)
            return total

        return term

    return weight * objective(Prepared(prepare))


def attention_maps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layouts: dict[str, Layout],
    output: str = "logit",
    *,
    checked: bool = True,
) -> list[Tensor]:
    """Return the Grad-CAM map of class `y` of each layer, `[B, 1, h, w]`, in the graph of `x` if `x` is in one.

    Args:
        layouts: how the output of each layer is read, by its name.
        output: `"logit"` or `"probability"` of class `y`, whose gradient is the weight of a feature map.
        checked: whether it is known that the model has the classes `y`.
    """
    attached = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        logits, outputs = activations(model, x if attached else x.detach().requires_grad_(), list(layouts))
        if not checked:
            check_classes(logits, y)
        score = (logits.softmax(1) if output == "probability" else logits).gather(1, y[:, None]).sum()
        wanted = [outputs[name] for name in layouts]
        # the graph stays, because other terms differentiate the same pass
        slopes = torch.autograd.grad(score, wanted, create_graph=attached, retain_graph=True, allow_unused=True)
        found = []
        for (name, layout), features, slope in zip(layouts.items(), wanted, slopes, strict=True):
            if slope is None:
                raise Unsupported(f"the logits do not depend on layer {name!r}")
            found.append(positive_sum(layout.maps(slope).mean((2, 3), keepdim=True), layout.maps(features)))
    return found if attached else [heat.detach() for heat in found]


def _names(layers: Layers) -> tuple[str, ...]:
    """Return the names of layers; none for None."""
    return () if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)


def _layout(start: Start, name: str, output: Tensor) -> Layout | None:
    """Return how the output of a layer is read as feature maps, or None if it has no space."""
    flat = output.dim() == 2 or (output.dim() == 4 and output.shape[2:].numel() == 1)
    return None if flat else layout_of(start.model, start.x, name)


def _maps(output: Tensor, layout: Layout | None) -> Tensor:
    """Return the output of a layer as `[B, C, h, w]`, or unchanged without a layout."""
    return output if layout is None else layout.maps(output)


class _PowerDistance(torch.autograd.Function):
    """Return `|P(a) - b|^2` of every row, `[B]`, with `P(a) = sign(a) |a|^power`; at zero, its derivative counts as 0.

    One function instead of its operations, because the feature maps of early layers are large.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, before: Tensor, power: float) -> Tensor:
        """Return the distances; `before` is a power already."""
        gap, divisor = _power(features, power)
        gap.sub_(before)
        ctx.save_for_backward(gap, divisor)
        ctx.power = power
        distance: Tensor = torch.linalg.vector_norm(gap.flatten(1), dim=1)
        return distance.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to the features."""
        gap, divisor = ctx.saved_tensors
        return (gap * per_sample(2 * ctx.power * slope, gap)).div_(divisor), None, None


def _power(features: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return `sign(a) |a|^power`, and `|a|^(1 - power)`, by which `a` is divided for it; of zero, it is infinity.

    The derivative of the power is the exponent over the same number.
    """
    size: Tensor = F.threshold(features.abs(), _ZERO, math.inf, inplace=True)
    divisor = size.sqrt_() if power == 0.5 else size.pow_(1 - power)
    return features / divisor, divisor
