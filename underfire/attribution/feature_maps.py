"""Read feature maps of layers and their gradients, and make maps of them: the parts that CAM methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.gradients import differentiable_input
from underfire.attribution.scores import class_score
from underfire.errors import InputError, Unsupported
from underfire.hooks import Layout, activations, forward_from_layers, last_spatial_layer, layout_of, plain_relu
from underfire.validate import require_finite

Grid = tuple[int, int]


def layouts_of(
    model: nn.Module, x: Tensor, layer: str | tuple[str, ...] | None, grid: Grid | None = None
) -> dict[str, Layout]:
    """Return how the output of each layer is read as feature maps, by the name of the layer.

    Args:
        x: images; only their size, type and device matter.
        layer: one name or several; None is the last spatial layer (see `hooks.last_spatial_layer`).
        grid: rows and columns of a transformer's tokens; None finds them.

    Raises:
        ModelError: there is no such layer. InputError: no layer is named, one is named twice, or the grid does not fit.
            Unsupported: a layer has no space, or tokens of no grid that can be found.
    """
    if layer is None:
        layer = last_spatial_layer(model, x, grid)
    names = tuple(layer) if isinstance(layer, (tuple, list)) else (layer,)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"layer must be one name or several different ones, got {names}")
    return {name: layout_of(model, x, name, grid) for name in names}


def feature_maps(
    model: nn.Module, x: Tensor, y: Tensor, layers: dict[str, Layout], *, attached: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logit of class `y`, `[B]`, and the output of each layer by its name, in the layer's own layout.

    With `attached`, both are in a graph that begins at `x`; otherwise the graph begins at the layers.

    Raises:
        DataError: the classes do not fit. ModelError: a layer gives NaN.
    """
    logits, outputs = (activations if attached else forward_from_layers)(model, x, list(layers))
    logit = class_score(logits, y)
    for name, output in outputs.items():
        require_finite(output, f"the output of layer {name!r}")
    return logit, outputs


def features_and_gradients(
    model: nn.Module, x: Tensor, y: Tensor, layers: dict[str, Layout], *, attached: bool
) -> list[tuple[Tensor, Tensor]]:
    """Return the feature maps of each layer and the gradient of the logit of `y` to them, both `[B, C, h, w]`.

    With `attached`, both carry a graph to `x`. Otherwise the graph begins at the layers, and nothing before them is
    saved for the backward pass.

    Raises:
        ModelError: features or gradient are not finite. Unsupported: the logits have no gradient with respect to a
            layer.
    """
    logit, outputs = feature_maps(model, x, y, layers, attached=attached)
    if not logit.requires_grad:
        raise Unsupported(
            f"the model has no gradient with respect to layer {next(iter(layers))!r}; score_cam needs none"
        )
    read = [outputs[name] for name in layers]
    gradients = torch.autograd.grad(logit.sum(), read, create_graph=attached, retain_graph=attached, allow_unused=True)
    pairs = []
    for (name, layout), features, gradient in zip(layers.items(), read, gradients, strict=True):
        if gradient is None:
            raise Unsupported(f"the logits do not depend on layer {name!r}, or have no gradient with respect to it")
        pairs.append((layout.maps(features), layout.maps(require_finite(gradient))))
    return pairs


def weighted_maps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layer: str | tuple[str, ...] | None,
    grid: Grid | None,
    weigh: Callable[[Tensor, Tensor], Tensor],
    *,
    signed: bool = False,
    join: Callable[[Sequence[Tensor]], Tensor] | None = None,
) -> Tensor:
    """Return `ReLU(Σ_k w_k A^k)`, `[B, 1, h, w]`, of the channels `A^k` of a layer; several layers are averaged.

    Args:
        layer: see `layouts_of`.
        grid: see `layouts_of`.
        weigh: `(features, gradient) -> weights`, `[B, C, 1, 1]` or `[B, C, h, w]`, of a layer's feature maps and their
            gradient, both `[B, C, h, w]`.
        signed: leave the ReLU out.
        join: makes one map of those of several layers; None is `average_layers`.
    """
    with differentiable_input(model, x) as (point, attached):
        layers = layouts_of(model, point, layer, grid)
        pairs = features_and_gradients(model, point, y, layers, attached=attached)
        sums = [(weigh(features, g) * features).sum(1, keepdim=True) for features, g in pairs]
        heat = (join or average_layers)(sums if signed else [positive_part(total) for total in sums]).to(x.dtype)
    return heat if attached else heat.detach()


def positive_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Return `ReLU(Σ_k w_k A^k)`, `[B, 1, h, w]`, for weights `[B, C, 1, 1]`."""
    return positive_part((weights * features).sum(1, keepdim=True))


def positive_part(z: Tensor) -> Tensor:
    """Return `ReLU(z)` of a map or its weights, which is no part of the network: rules for its ReLUs do not apply."""
    with plain_relu():
        return z.clamp_min(0)


def average_layers(maps: Sequence[Tensor]) -> Tensor:
    """Average the maps of several layers, each divided by its largest value and resized to the largest grid.

    A single map is returned as it is. A map that is zero everywhere stays zero.
    """
    if len(maps) == 1:
        return maps[0]
    size = [max(m.shape[side] for m in maps) for side in (2, 3)]
    return torch.stack([resized(scaled(m), size) for m in maps]).mean(0)


def scaled(m: Tensor) -> Tensor:
    """Divide every map by its largest absolute value; a map that is zero everywhere stays zero."""
    largest = m.abs().amax((1, 2, 3), keepdim=True)
    return m / torch.where(largest > 0, largest, torch.ones_like(largest))


def resized(m: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps `[B, C, h, w]` bilinearly to `size`, height and width."""
    return F.interpolate(m, list(size), mode="bilinear", align_corners=False)
