"""Find the layers that a method reads by default: one noise image for each size of image goes through the model."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from underfire.errors import InputError, Unsupported
from underfire.hooks.applied import APPLIED, AVERAGED
from underfire.hooks.layouts import Grid, Layout, Trace, layout_in
from underfire.hooks.networks import find_layer, frozen, layer, remove_at_exit, unwrap
from underfire.hooks.reading import read, uncached
from underfire.hooks.tracing import noise_image, trace_layers
from underfire.model import unwatched

_TRACES: WeakKeyDictionary[nn.Module, dict[torch.Size, Trace]] = WeakKeyDictionary()
# The results of `last_spatial_layer`, for each model, and each shape of an image and grid of tokens.
_LAST: WeakKeyDictionary[nn.Module, dict[tuple[torch.Size, Grid | None], str]] = WeakKeyDictionary()


def traced(model: nn.Module, x: Tensor, grid: Grid | None = None) -> Trace:
    """Return the trace of the model for images of the shape of `x`, made once; raise InputError for a wrong grid."""
    if grid is not None and min(grid) < 1:
        raise InputError(f"grid must be the rows and the columns of the tokens, such as (14, 14), got {grid}")
    known = _TRACES.setdefault(unwrap(model, into_defenses=False), {})
    if x.shape[1:] not in known:
        known[x.shape[1:]] = trace_layers(model, x)
    return known[x.shape[1:]]


def is_traced(model: nn.Module, x: Tensor) -> bool:
    """Return whether `traced` has made the trace of the model for images of the shape of `x`."""
    return x.shape[1:] in _TRACES.get(unwrap(model, into_defenses=False), {})


def layout_of(model: nn.Module, x: Tensor, name: str, grid: Grid | None = None) -> Layout:
    """Return how the output of the layer `name` is read as feature maps `[B, C, h, w]`.

    Args:
        x: images; only their size, type and device matter.
        grid: rows and columns of a transformer's tokens; None finds them.

    Raises:
        ModelError: there is no such layer. InputError: the grid does not fit. Unsupported: the layer has no space, or
            tokens of no grid that can be found.
    """
    return layout_in(traced(model, x, grid), model, name, grid)


def as_maps(model: nn.Module, x: Tensor, name: str, output: Tensor) -> Tensor:
    """Convert the output of the layer `name` for `x` to `[B, C, h, w]`, or return it unchanged if it is not spatial.

    An output that is not spatial is `[B, D]` or `[B, C, 1, 1]`.

    Raises:
        Unsupported: it has no known layout, or tokens of no grid that can be found.
    """
    no_space = output.dim() == 2 or (output.dim() == 4 and output.shape[2:].numel() == 1)
    return output if no_space else layout_of(model, x, name).maps(output)


def last_spatial_layer(model: nn.Module, x: Tensor, grid: Grid | None = None) -> str:
    """Return the name of the last spatial layer: its output has several rows or columns, or the tokens of a grid.

    Adaptive pooling, which only resamples (AlexNet, VGG), does not count, nor do maps that each belong to one class
    (SqueezeNet). If the network applies a function such as ReLU to that layer, the result is named `LAYER+relu`. For a
    transformer, it is the last layer on whose patch tokens the logits depend: with a class token, the patch
    tokens of the last block no longer change the logits. Without a gradient, other values in these places tell. Single
    linear layers (queries, keys, values) do not count.

    Raises:
        Unsupported: there is no such layer, or its tokens have no grid that can be found.
    """
    known = _LAST.setdefault(unwrap(model, into_defenses=False), {})
    key = (x.shape[1:], grid)
    if key not in known:
        known[key] = _last(model, x, grid)
    return known[key]


def spatial_layers(model: nn.Module, x: Tensor, grid: Grid | None = None) -> list[tuple[str, int, Layout]]:
    """Return the name, the number of channels and the layout of all spatial layers, in order of execution.

    Single linear layers that return tokens, and maps that each belong to one class, are left out.

    Raises:
        Unsupported: the tokens of the last such layer have no grid that can be found.
    """
    trace = traced(model, x, grid)
    order = _without_class_maps(trace, grid)
    order = [name for name in order if name not in trace.resampled] or order
    layouts: dict[str, Layout] = {}
    unknown = None  # the last layer with tokens of no known grid
    for name in order:
        _, shape = trace.outputs[name]
        layout = trace.layout(name, grid)
        if layout is not None and (layout.kind == "first" or not isinstance(layer(model, name), nn.Linear)):
            layouts[name], unknown = layout, None
        elif layout is None and not isinstance(shape, str) and trace.are_tokens(shape):
            unknown = name
    if unknown is not None:
        layout_in(trace, model, unknown, grid)  # raises an error that says which grid to give
    return [(name, _channels(trace, name, layout), layout) for name, layout in layouts.items()]


def _channels(trace: Trace, name: str, layout: Layout) -> int:
    shape = trace.outputs[name][1]
    assert not isinstance(shape, str)
    return shape[1] if layout.kind == "first" else shape[-1]


def _last(model: nn.Module, x: Tensor, grid: Grid | None) -> str:
    """Return the name of the last spatial layer (see `last_spatial_layer`)."""
    layouts = {name: layout for name, _, layout in spatial_layers(model, x, grid)}
    if not layouts:
        raise Unsupported(
            "the model has no spatial layer, whose output is [B, C, h, w] or a transformer's tokens; choose an "
            "interpreter that reads no layer, such as gradient"
        )
    # the last of them, or for a transformer the last on which the logits depend
    last = next(reversed(layouts))
    return last if layouts[last].kind == "first" else _last_that_counts(layouts, model, x) or last


def _last_that_counts(layouts: dict[str, Layout], model: nn.Module, x: Tensor) -> str | None:
    """Return the last layer on whose feature maps the logits depend, or None."""
    with torch.enable_grad(), frozen(model), unwatched():
        logits, outputs = read(model, uncached(model), noise_image(x).requires_grad_() * 1, tuple(layouts))
        if not logits.requires_grad:
            return next((n for n in reversed(layouts) if _matters(model, x, n, layouts[n], logits)), None)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        wanted = [name for name in layouts if outputs[name].requires_grad]
        found = torch.autograd.grad((weights * logits).sum(), [outputs[n] for n in wanted], allow_unused=True)
    gradients: dict[str, Any] = dict(zip(wanted, found, strict=True))
    counts = (n for n in reversed(wanted) if gradients[n] is not None and bool(layouts[n].maps(gradients[n]).any()))
    return next(counts, None)


def _matters(model: nn.Module, x: Tensor, name: str, layout: Layout, logits: Tensor) -> bool:
    """Return whether other feature maps in the output of a layer change the logits of the noise image.

    Where the name is that of a function of a layer's output, the answer is yes.
    """

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        changed = output + output.std() * noise
        if layout.kind == "tokens":
            changed[:, : layout.extra] = output[:, : layout.extra]
        return changed

    if APPLIED in name and find_layer(model, name)[2] is not None:
        return True
    with torch.no_grad(), remove_at_exit(layer(model, name).register_forward_hook(hook)):
        return not _close(uncached(model)(noise_image(x)), logits)


def pooled_head(model: nn.Module, x: Tensor, grid: Grid | None = None) -> tuple[str, Tensor, Tensor | None]:
    """Return the layer whose average over space enters the last linear layer, and the weights of that linear layer.

    It is found by what the linear layer reads: functions that the network applies to the layer, whose result has a name
    of its own (see `hooks.applied`), and dropout may lie between. Where no layer returns what is averaged, such as a
    sum of two, the name is `AVERAGED`. Where the averages are the logits themselves, the weight is the identity.

    Returns:
        The name of the averaged layer, the weight `[K, D]` of the linear layer, and its bias `[K]` or None.

    Raises:
        Unsupported: the model does not end in global average pooling and at most one linear layer.
    """
    trace = traced(model, x, grid)
    averaged = [] if trace.averaged is None else [(AVERAGED, trace.averaged)]
    for name, output in (*reversed(trace.recent), *averaged):
        layout = trace.layout(name, grid) if trace.outputs[name][1] == output.shape else None
        if layout is None:
            continue
        mean = layout.maps(output).mean((2, 3))
        if _close(mean, trace.logits):  # one map for each class, which a convolution made
            return name, torch.eye(mean.shape[1]).to(mean), None
        head = _head(trace, mean)
        if head is not None:
            linear = layer(model, head)
            assert isinstance(linear, (nn.Linear, nn.Conv2d))
            return name, linear.weight.flatten(1), linear.bias
    raise Unsupported(
        "CAM needs global average pooling and at most one linear layer after the last spatial layer "
        f"({last_spatial_layer(model, x, grid)!r}), which this model does not have; grad_cam needs neither"
    )


def _without_class_maps(trace: Trace, grid: Grid | None) -> list[str]:
    """Return the layers of a trace without those at its end that give one map for each class.

    Where the logits are the means of the last maps, as in SqueezeNet, these are explanations already: each channel
    belongs to one class. So do the maps of the same shape before them, which are not rectified yet.
    """
    for name, output in reversed(trace.recent):
        layout = trace.layout(name, grid) if trace.outputs[name][1] == output.shape else None
        if layout is not None and name in trace.order and _close(layout.maps(output).mean((2, 3)), trace.logits):
            end = trace.order.index(name)
            while end and trace.outputs[trace.order[end - 1]][1] == output.shape:
                end -= 1
            return trace.order[:end] or trace.order
    return trace.order


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.to(other), other, rtol=1e-3, atol=1e-5)


def _head(trace: Trace, mean: Tensor) -> str | None:
    """Return the name of the linear layer that computes the logits from the spatial mean `[1, D]`, or None."""
    logits = trace.logits
    for name, before, after in reversed(trace.heads):
        if _close(before, mean.to(before)) and _close(after.to(logits), logits):
            return name
    return None
