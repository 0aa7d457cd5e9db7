"""Decide how the output of a layer is read as feature maps: channels first, channels last, or tokens of a transformer.

One pass of a noise image is traced for each model and size of image. For an output of four dimensions, the modules that
read or return its shape tell which dimension holds the channels: for convolutions, batch normalisation and pooling it
is the first after the batch, for linear layers and layer normalisation the last. Outputs `[B, N, D]` are tokens if a
linear layer or layer normalisation reads or returns the width `D`; their grid is that of the last feature map before
them (the patch embedding), or else one with the proportions of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from underfire.errors import InputError, ModelError, Unsupported
from underfire.hooks.applied import APPLIED, AppliedFunctions
from underfire.hooks.reading import frozen, layer, readable_layers, remove_at_exit, uncached

#: The largest number of class, distillation and register tokens that may precede the tokens of the image.
EXTRA = 16
# The numbers of such tokens that are tried if no feature map tells the grid: class, distillation, four registers.
_EXTRA_OF_SQUARES = (0, 1, 2, 4, 5)
# Modules that resample feature maps to a fixed grid.
_RESAMPLE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_RECENT = 8  # outputs that are kept
# Modules that have the channels first.
_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)

Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The way in which the output of a layer is read as feature maps.

    Attributes:
        kind: `"first"` is `[B, C, h, w]`, `"last"` is `[B, h, w, C]`, `"tokens"` is `[B, extra + h·w, C]`.
        grid: `h` and `w`.
        extra: number of tokens before those of the image; they are left out.
    """

    kind: Literal["first", "last", "tokens"]
    grid: Grid
    extra: int = 0

    def maps(self, output: Tensor) -> Tensor:
        """Return the output, or its gradient, as `[B, C, h, w]`."""
        if self.kind == "tokens":
            return output[:, self.extra :].transpose(1, 2).unflatten(2, self.grid)
        return output.permute(0, 3, 1, 2) if self.kind == "last" else output


@dataclass
class Trace:
    """A record of one forward pass of a noise image.

    Attributes:
        image: height and width of the image.
        outputs: for every layer, the number of its last call, and the shape of its output, or the name of the output's
            type if it is not a tensor.
        entered: for every layer that is no `nn.Sequential`, the shape of its first input.
        order: the layers with an output of three or four dimensions that depends on the image, in order of execution;
            of nested layers that return the same tensor, only the innermost. Adaptive pooling is left out, because it
            only resamples the feature maps before it.
        first: shapes of outputs that have the channels first.
        last: shapes of outputs that have the channels last.
        widths: the sizes `D` that tokens `[B, N, D]` have.
        recent: the last layers with such an output, adaptive pooling among them, and their outputs.
        heads: for every linear layer or 1x1 convolution of one place, its name, input and output.
        count: number of calls of all layers.
        logits: what the model returned.
    """

    image: Grid
    outputs: dict[str, tuple[int, torch.Size | str]] = field(default_factory=dict)
    entered: dict[str, torch.Size] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    first: set[torch.Size] = field(default_factory=set)
    last: set[torch.Size] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    recent: list[tuple[str, Tensor]] = field(default_factory=list)
    heads: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    count: int = 0
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    def layout(self, name: str, grid: Grid | None = None) -> Layout | None:
        """Return how the output of a layer is read, or None if it has no space, or tokens whose grid is unknown."""
        _, shape = self.outputs[name]
        if isinstance(shape, str) or len(shape) not in (3, 4) or shape[0] != 1:
            return None
        if len(shape) == 3:
            found = self._grid(name, grid) if self.are_tokens(shape) else None
            return Layout("tokens", found, shape[1] - found[0] * found[1]) if found else None
        last = shape in self.last and shape not in self.first
        rows, columns = shape[1:3] if last else shape[2:]
        if rows * columns < 2 or self._is_attention(name, shape):
            return None
        return Layout("last" if last else "first", (rows, columns))

    def are_tokens(self, shape: torch.Size) -> bool:
        """Return whether an output of this shape is tokens `[1, N, D]` of a known width."""
        return len(shape) == 3 and shape[0] == 1 and shape[1] > 1 and shape[2] in self.widths

    def _is_attention(self, name: str, shape: torch.Size) -> bool:
        """Return whether an output is a part of attention: queries, keys or values split in heads, or its weights.

        The first are `[1, heads, N, D / heads]`, or with two dimensions swapped, the weights `[1, heads, N, N]`, where
        earlier layers return N tokens of D channels. N is one for a query that pools tokens.
        """
        if shape in self.first:
            return False
        at = self.outputs[name][0]
        shapes = [s for when, s in self.outputs.values() if when < at and not isinstance(s, str)]
        earlier = [s for s in shapes if len(s) == 3 and s[0] == 1]
        counts, pairs = {1, *(s[1] for s in earlier)}, {(n, s[2]) for s in earlier for n in (s[1], 1)}
        _, one, two, three = shape
        weights = two in counts and three in counts and (two > 1 or three > 1)
        return weights or (two, one * three) in pairs or (one, two * three) in pairs

    def narrows(self, name: str) -> bool:
        """Return whether a layer lies in a block before the block reduces the size of the feature maps that enter it.

        Such a layer is no whole set of feature maps: other paths go past it.
        """
        grid, parts = self._sides(self.outputs[name][1]), name.split(".")
        for end in range(1, len(parts)):
            block = ".".join(parts[:end])
            left = self._sides(self.outputs[block][1]) if block in self.outputs else None
            if grid is not None and self._sides(self.entered.get(block, "")) == grid and left not in (None, grid):
                return True
        return False

    def _sides(self, shape: torch.Size | str) -> Grid | None:
        """Return height and width of a tensor of four dimensions, or None."""
        if isinstance(shape, str) or len(shape) != 4:
            return None
        last = shape in self.last and shape not in self.first
        return (shape[1], shape[2]) if last else (shape[2], shape[3])

    def _grid(self, name: str, given: Grid | None) -> Grid | None:
        """Return the grid of the tokens that a layer returns, or None if it cannot be found; `given` comes first."""
        when, shape = self.outputs[name]
        assert not isinstance(shape, str)
        tokens = shape[1]
        if given is not None:
            return given if given[0] * given[1] <= tokens else None
        # the grid of the last feature map before these tokens
        earlier = sorted((at, other) for other, (at, s) in self.outputs.items() if at < when and len(s) == 4)
        for _, other in reversed(earlier):
            layout = self.layout(other)
            if layout is not None and 0 <= tokens - layout.grid[0] * layout.grid[1] <= EXTRA:
                return layout.grid
        # or a grid with the proportions of the image
        height, width = self.image
        for extra in _EXTRA_OF_SQUARES:
            rows = round(((tokens - extra) * height / width) ** 0.5) if tokens > extra + 1 else 0
            columns = rows * width // height
            if rows * columns == tokens - extra > 1 and rows * width == columns * height:
                return rows, columns
        return None


def trace_layers(model: nn.Module, x: Tensor) -> Trace:
    """Send one noise image of the size of `x` through the model and record the output of every layer.

    Raises:
        Unsupported: the model is compiled, so that its layers cannot be read.
    """
    trace, constant = Trace((x.shape[2], x.shape[3])), set[str]()
    with ExitStack() as stack, torch.enable_grad(), frozen(model):
        noter = stack.enter_context(_Noter(trace, constant))
        for name, module in readable_layers(model):
            hook = module.register_forward_hook(lambda *seen, name=name: noter.note(name, *seen))
            stack.enter_context(remove_at_exit(hook))
        logits = uncached(model)(noise_image(x).requires_grad_() * 1)
    # what does not depend on the image, such as a table of positions, is no feature map
    if logits.requires_grad:
        trace.order = [name for name in trace.order if name not in constant]
    trace.logits = logits.detach()
    return trace


class _Noter(AppliedFunctions):
    """Record in a trace what layers return, and what functions return that are applied to it."""

    def __init__(self, trace: Trace, constant: set[str]) -> None:
        super().__init__()
        self.trace, self.constant = trace, constant
        # the last output, kept so that no other tensor gets its memory, its version and whether a function returned it
        self.before: tuple[Tensor, int, str | None] | None = None

    def note(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Record the output of a layer; of a module that is used several times, the last counts."""
        trace = self.trace
        trace.count += 1
        if not isinstance(output, Tensor):
            trace.outputs[name] = trace.count, type(output).__name__
            return
        trace.outputs[name] = trace.count, output.shape
        if inputs and isinstance(inputs[0], Tensor) and not isinstance(module, nn.Sequential):
            trace.entered[name] = inputs[0].shape
        _vote(trace, module, [t for t in (*inputs, output) if isinstance(t, Tensor)])
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            flat = inputs[0].detach().flatten(1)
            if flat.shape[1] == module.weight.shape[1]:
                trace.heads.append((name, flat.clone(), output.detach().flatten(1).clone()))
        if not _has_space(output):
            return
        # a layer that returns the tensor of the layer inside it is not recorded again
        before = self.before
        same = before is not None and before[0].data_ptr() == output.data_ptr() and before[1] == output._version
        if not same or before is None or before[0].shape != output.shape:
            self._record(name, output, resamples=isinstance(module, _RESAMPLE))
        elif before[2] is not None:  # the function was applied inside this layer
            self._forget(before[2])
            self._record(name, output)
        self.watch(name, output)
        self.before = output, output._version, None

    def applied(self, name: str, function: str, result: Tensor) -> Tensor:
        """Record the result of a function that the network applies to the output of a layer."""
        if result.dim() == 4 and _has_space(result):
            name = f"{name}{APPLIED}{function}"
            self.trace.count += 1
            self.trace.outputs[name] = self.trace.count, result.shape
            self._record(name, result)
            self.before = result, result._version, name
        return result

    def _record(self, name: str, output: Tensor, *, resamples: bool = False) -> None:
        trace = self.trace
        trace.order = [other for other in trace.order if other != name] + [name] * (not resamples)
        # A later in-place operation may change the output, so it is copied.
        trace.recent = [*trace.recent[1 - _RECENT :], (name, output.detach().clone())]
        (self.constant.discard if output.requires_grad else self.constant.add)(name)

    def _forget(self, name: str) -> None:
        self.trace.order.remove(name)
        self.trace.recent = [entry for entry in self.trace.recent if entry[0] != name]
        del self.trace.outputs[name]


def _has_space(output: Tensor) -> bool:
    return output.dim() in (3, 4) and sum(side > 1 for side in output.shape[1:]) > 1


def noise_image(x: Tensor) -> Tensor:
    """Return one noise image of the size of `x`, always the same; a plain image could make different layers agree."""
    return torch.rand(1, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)


def _vote(trace: Trace, module: nn.Module, tensors: list[Tensor]) -> None:
    """Record which shapes have channels first or last, or are tokens, by the module that reads or returns them."""
    for t in tensors:
        normalised = isinstance(module, nn.LayerNorm) and module.normalized_shape == t.shape[-1:]
        if t.dim() == 4 and isinstance(module, _FIRST):
            trace.first.add(t.shape)
        elif t.dim() == 4 and (isinstance(module, nn.Linear) or (normalised and t.shape[1] != t.shape[3])):
            trace.last.add(t.shape)
        elif t.dim() == 3 and (isinstance(module, nn.Linear) or normalised):
            trace.widths.add(t.shape[2])


def layout_in(trace: Trace, model: nn.Module, name: str, grid: Grid | None) -> Layout:
    """Return how the output of the layer `name` is read as feature maps.

    Raises:
        ModelError: there is no such layer, or the forward pass does not use it. InputError: the grid does not fit.
            Unsupported: its output has no space, or its tokens no grid that can be found.
    """
    layer(model, name)  # raises if there is none
    if name not in trace.outputs:
        raise ModelError(f"layer {name!r} took no part in the forward pass")
    _, shape = trace.outputs[name]
    if isinstance(shape, str):
        raise Unsupported(f"layer {name!r} returns a {shape}, not a tensor; name a layer inside or after it")
    found = trace.layout(name, grid)
    if found is not None:
        return found
    if trace.are_tokens(shape):
        raise _no_grid(name, shape[1], grid, trace.image)
    each = tuple(shape[1:])
    raise Unsupported(
        f"a map needs a layer with space, whose output is [B, C, h, w], [B, h, w, C] or tokens [B, N, D]; "
        f"{name!r} gives {each} for each image"
    )


def _no_grid(name: str, tokens: int, grid: Grid | None, image: Grid) -> InputError:
    """Return the error for tokens whose grid does not fit, or cannot be found; it suggests grids."""
    if grid is not None:
        return InputError(f"grid {grid} has {grid[0] * grid[1]} places, but layer {name!r} gives {tokens} tokens")
    height, width = image
    fits = [min(_grids(n), key=lambda g: abs(g[0] * width - g[1] * height)) for n in (tokens, tokens - 1)]
    return Unsupported(
        f"layer {name!r} gives {tokens} tokens, and no grid of the image's proportions has as many; give "
        f"grid=(rows, columns), such as {fits[0]}, or {fits[1]} after one class token"
    )


def _grids(places: int) -> Iterator[Grid]:
    """Return all pairs of rows and columns with that many places."""
    return ((rows, places // rows) for rows in range(1, places + 1) if places % rows == 0)
