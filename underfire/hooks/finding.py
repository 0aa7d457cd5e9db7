"""Find the layers that a method uses by default, by one pass of a noise image for each size of image."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from underfire.errors import InputError, Unsupported
from underfire.hooks.layouts import Grid, Layout, Trace, layout_in, noise_image, trace_layers
from underfire.hooks.reading import frozen, layer, read, uncached, unwrap

_TRACES: WeakKeyDictionary[nn.Module, dict[torch.Size, Trace]] = WeakKeyDictionary()
_LAST: WeakKeyDictionary[nn.Module, dict[tuple[torch.Size, Grid | None], str]] = WeakKeyDictionary()


def _traced(model: nn.Module, x: Tensor, grid: Grid | None) -> Trace:
    if grid is not None and min(grid) < 1:
        raise InputError(f"grid must be the rows and the columns of the tokens, such as (14, 14), got {grid}")
    known = _TRACES.setdefault(unwrap(model), {})
    if x.shape[1:] not in known:
        known[x.shape[1:]] = trace_layers(model, x)
    return known[x.shape[1:]]


def layout_of(model: nn.Module, x: Tensor, name: str, grid: Grid | None = None) -> Layout:
    """Return how the output of the layer `name` is read as feature maps `[B, C, h, w]`.

    Args:
        x: images; only their size, type and device matter.
        grid: rows and columns of a transformer's tokens; None finds them.

    Raises:
        ModelError: there is no such layer. InputError: the grid does not fit. Unsupported: the layer has no space, or
            tokens of no grid that can be found.
    """
    return layout_in(_traced(model, x, grid), model, name, grid)


def as_maps(model: nn.Module, x: Tensor, name: str, output: Tensor) -> Tensor:
    """Return the output of the layer `name` for `x` as `[B, C, h, w]`, or where it has no places as `[B, D]`.

    Raises:
        Unsupported: it is neither, or tokens of no grid that can be found.
    """
    alone = output.dim() == 2 or (output.dim() == 4 and output.shape[2:].numel() == 1)
    return output if alone else layout_of(model, x, name).maps(output)


def last_spatial_layer(model: nn.Module, x: Tensor, grid: Grid | None = None) -> str:
    """Return the name of the last layer whose output has space.

    For a transformer it is the last layer at whose places the logits have a gradient: with a class token, the patches
    of the last block no longer change the logits. Single linear layers (queries, keys, values) do not count.

    Raises:
        Unsupported: there is none, or its tokens have no grid that can be found.
    """
    known = _LAST.setdefault(unwrap(model), {})
    key = (x.shape[1:], grid)
    if key not in known:
        known[key] = _last(_traced(model, x, grid), model, x, grid)
    return known[key]


def _last(trace: Trace, model: nn.Module, x: Tensor, grid: Grid | None) -> str:
    layouts: dict[str, Layout] = {}
    unknown = None  # the last layer with tokens of no known grid
    for name in trace.order:
        _, shape = trace.outputs[name]
        layout = trace.layout(name, grid)
        if layout is not None and (layout.kind == "first" or not isinstance(layer(model, name), nn.Linear)):
            layouts[name], unknown = layout, None
        elif layout is None and not isinstance(shape, str) and trace.are_tokens(shape):
            unknown = name
    if unknown is not None:
        layout_in(trace, model, unknown, grid)  # raises: it says what to give
    if not layouts:
        raise Unsupported(
            "the model has no layer whose output has space, [B, C, h, w] or a transformer's tokens; choose an "
            "interpreter that reads no layer, such as gradient"
        )
    last = next(reversed(layouts))
    return last if layouts[last].kind == "first" else _last_that_counts(layouts, model, x) or last


def _last_that_counts(layouts: dict[str, Layout], model: nn.Module, x: Tensor) -> str | None:
    """Return the last layer at whose places the logits have a gradient."""
    with torch.enable_grad(), frozen(model):
        logits, outputs = read(model, uncached(model), noise_image(x).requires_grad_() * 1, tuple(layouts))
        if not logits.requires_grad:
            return None
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        wanted = [name for name in layouts if outputs[name].requires_grad]
        found = torch.autograd.grad((weights * logits).sum(), [outputs[n] for n in wanted], allow_unused=True)
    gradients: dict[str, Any] = dict(zip(wanted, found, strict=True))
    counts = (n for n in reversed(wanted) if gradients[n] is not None and bool(layouts[n].maps(gradients[n]).any()))
    return next(counts, None)


def pooled_head(model: nn.Module, x: Tensor, grid: Grid | None = None) -> tuple[str, Tensor, Tensor | None]:
    """Return the layer that is averaged over space into the last linear layer, and that layer's weight and bias.

    Returns:
        The layer's name, the weight `[K, D]`, and the bias `[K]` or None.

    Raises:
        Unsupported: the model does not end in global average pooling and one linear layer.
    """
    trace = _traced(model, x, grid)
    for name, output in sorted(trace.latest.values(), key=lambda entry: -trace.outputs[entry[0]][0]):
        layout = trace.layout(name, grid) if trace.outputs[name][1] == output.shape else None
        head = _head(trace, layout.maps(output).mean((2, 3))) if layout is not None else None
        if head is not None:
            linear = layer(model, head)
            assert isinstance(linear, (nn.Linear, nn.Conv2d))
            return name, linear.weight.flatten(1), linear.bias
    raise Unsupported(
        "CAM needs global average pooling and one linear layer after the last spatial layer "
        f"({last_spatial_layer(model, x, grid)!r}), which this model does not have; grad_cam needs neither"
    )


def _head(trace: Trace, mean: Tensor) -> str | None:
    """Return the name of the linear layer that computes the logits from a spatial mean, or None."""

    def close(one: Tensor, other: Tensor) -> bool:
        return one.shape == other.shape and torch.allclose(one.to(other), other, rtol=1e-3, atol=1e-5)

    logits = trace.logits
    for name, took, gave in reversed(trace.heads):
        if close(took, mean.to(took)) and close(gave.to(logits), logits):
            return name
    return None
