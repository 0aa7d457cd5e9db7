"""Decide how the output of a layer is read as feature maps: channels first, channels last, or tokens of a transformer.

One pass of a noise image is traced for each model and size of image. For an output of four dimensions, the modules that
read or return its shape tell which dimension holds the channels: for convolutions, batch normalisation and pooling it
is the first after the batch, for linear layers and layer normalisation the last. Outputs `[B, N, D]` are tokens if a
linear layer or layer normalisation reads or returns the width `D`; their grid is that of the last feature map before
them (the patch embedding), or else one with the proportions of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from underfire.errors import InputError, ModelError, Unsupported
from underfire.hooks.networks import layer

#: The largest number of class, distillation and register tokens that may precede the tokens of the image.
EXTRA = 16
# The numbers of such tokens that are tried if no feature map tells the grid: class, distillation, four registers.
_EXTRA_OF_SQUARES = (0, 1, 2, 4, 5)
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
            of nested layers that return the same tensor, only the innermost.
        resampled: the adaptive pooling among them, which only resamples the feature maps before it.
        first: shapes of outputs that have the channels first.
        last: shapes of outputs that have the channels last.
        widths: the sizes `D` that tokens `[B, N, D]` have.
        recent: the last layers with such an output, and their outputs.
        averaged: what the network averages over all places last, or None.
        heads: for every linear layer or 1x1 convolution of one place, its name, input and output.
        count: number of calls of all layers.
        logits: what the model returned.
    """

    image: Grid
    outputs: dict[str, tuple[int, torch.Size | str]] = field(default_factory=dict)
    entered: dict[str, torch.Size] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    resampled: set[str] = field(default_factory=set)
    first: set[torch.Size] = field(default_factory=set)
    last: set[torch.Size] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    recent: list[tuple[str, Tensor]] = field(default_factory=list)
    averaged: Tensor | None = None
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

        Such a layer does not carry all features: other paths bypass it.
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
        f"a map needs a spatial layer, whose output is [B, C, h, w], [B, h, w, C] or tokens [B, N, D]; "
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
