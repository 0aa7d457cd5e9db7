"""What the class activation methods share: the feature maps of layers, their gradients, and maps of several layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire.attribution.scores import class_score, differentiable_input, require_finite
from underfire.errors import InputError, ModelError
from underfire.hooks import Layout, activations, forward_from_layers, last_spatial_layer, layout_of

Grid = tuple[int, int]


def layouts_of(
    model: nn.Module, x: Tensor, layer: str | tuple[str, ...] | None, grid: Grid | None = None
) -> dict[str, Layout]:
    """The layers that are meant, and how the output of each is read as feature maps.

    Args:
        model: the model.
        x: images; only their size, type and device matter.
        layer: one name or several; None is the last layer with space, see `hooks.last_spatial_layer`.
        grid: rows and columns of a transformer's tokens; None finds them.

    Raises:
        ModelError: there is no such layer. InputError: no layer is named, one twice, or the grid does not fit.
            Unsupported: a layer has no space, or tokens of no grid that can be found.
    """
    if layer is None:
        layer = last_spatial_layer(model, x, grid)
    names = (layer,) if isinstance(layer, str) else tuple(layer)
    if not names or len(set(names)) < len(names):
        raise InputError(f"layer must be one name or several different ones, got {names}")
    return {name: layout_of(model, x, name, grid) for name in names}


def feature_maps(
    model: nn.Module, x: Tensor, y: Tensor, layers: dict[str, Layout], *, attached: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The logit of class `y`, `[B]`, and what each layer puts out, as it is; not in a graph from `x` unless `attached`.

    Raises:
        DataError: the classes do not fit. ModelError: a layer gives NaN.
    """
    logits, outputs = (activations if attached else forward_from_layers)(model, x, list(layers))
    score = class_score(logits, y)
    for name, output in outputs.items():
        require_finite(output, f"what layer {name!r} gives")
    return score, outputs


def features_and_gradients(
    model: nn.Module, x: Tensor, y: Tensor, layers: dict[str, Layout], *, attached: bool
) -> list[tuple[Tensor, Tensor]]:
    """Of each layer the feature maps `A`, and the gradient of the logit of class `y` to them, both `[B, C, h, w]`.

    The gradient is taken by a pass back through what follows the layers only. Nothing before them is kept for it,
    unless `attached`: then both carry a graph to `x`.

    Raises:
        ModelError: features or gradient are not numbers, or the logits do not depend on a layer.
    """
    score, outputs = feature_maps(model, x, y, layers, attached=attached)
    if not score.requires_grad:
        raise ModelError(f"the logits do not depend on layer {next(iter(layers))!r} by anything that has a gradient")
    read = [outputs[name] for name in layers]
    found = torch.autograd.grad(score.sum(), read, create_graph=attached, retain_graph=attached, allow_unused=True)
    pairs = []
    for (name, space), features, gradient in zip(layers.items(), read, found, strict=True):
        if gradient is None:
            raise ModelError(f"the logits do not depend on layer {name!r}")
        pairs.append((space.maps(features), space.maps(require_finite(gradient))))
    return pairs


def weighted_maps(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layer: str | tuple[str, ...] | None,
    grid: Grid | None,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The map `[B, 1, h, w]` of methods that weigh the channels of a layer: `ReLU(Σ_k w_k A^k)`.

    Args:
        model: the model.
        x: images.
        y: classes, int64 `[B]`.
        layer: see `layouts_of`.
        grid: see `layouts_of`.
        weigh: makes weights `[B, C, 1, 1]` of a layer's feature maps and their gradient, both `[B, C, h, w]`.
    """
    with differentiable_input(model, x) as (point, attached):
        layers = layouts_of(model, point, layer, grid)
        pairs = features_and_gradients(model, point, y, layers, attached=attached)
        shown = average_layers([positive(weigh(features, g), features) for features, g in pairs]).to(x.dtype)
    return shown if attached else shown.detach()


def positive(weights: Tensor, features: Tensor) -> Tensor:
    """`ReLU(Σ_k w_k A^k)`, `[B, 1, h, w]`, of weights `[B, C, 1, 1]`."""
    return (weights * features).sum(1, keepdim=True).clamp_min(0)


def average_layers(maps: Sequence[Tensor]) -> Tensor:
    """One map of those of several layers: each divided by its largest value, resized to the largest grid, averaged.

    A single map stays as it is; of several, one that is zero everywhere stays zero.
    """
    if len(maps) == 1:
        return maps[0]
    size = [max(m.shape[side] for m in maps) for side in (2, 3)]
    return torch.stack([resized(scaled(m), size) for m in maps]).mean(0)


def scaled(m: Tensor) -> Tensor:
    """Every map divided by its largest absolute value, so that it is at most 1; one that is zero stays zero."""
    largest = m.abs().amax((1, 2, 3), keepdim=True)
    return m / torch.where(largest > 0, largest, torch.ones_like(largest))


def resized(m: Tensor, size: Sequence[int]) -> Tensor:
    """The map on another grid, bilinearly."""
    return F.interpolate(m, list(size), mode="bilinear", align_corners=False)
