"""Tensors that stand, inside a network, for activations that differ from known ones in a rectangle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from underfire.incremental.intervals import Intervals


class NotReusable(Exception):
    """The error if a network calls other operations than before, or uses an activation as a stand-in does not allow."""


@dataclass(eq=False)
class Node:
    """One activation of the known images, and the operations that read it.

    Attributes:
        clean: the values, `[N, C, H, W]`; None if no later pass needs them.
        shape: the shape of the values.
        needed: whether later passes need the values.
        children: the operations that read the activation, in order: the function, its arguments that are not tensors,
            and the nodes of its results. None stands for an operation without a rule, or one that is recorded at
            another node.
        tables: see `table`, by the value outside the map.
        mean: see `means`, once it was computed.
    """

    clean: Tensor | None
    shape: torch.Size
    needed: bool = False
    children: list[tuple[Any, list[Any], list[Node]] | None] = field(default_factory=list)
    tables: dict[float, Tensor] = field(default_factory=dict)
    mean: Tensor | None = None

    def values(self) -> Tensor:
        """Return the values, or raise NotReusable if the first pass did not mark them as needed."""
        if self.clean is None:
            raise NotReusable("the network needs an activation that it did not need before")
        return self.clean

    def means(self) -> Tensor:
        """Return the mean of each channel of each image, `[N, C]`."""
        if self.mean is None:
            self.mean = self.values().mean((2, 3))
        return self.mean

    def table(self, outside: float) -> Tensor:
        """Return the channels of each place of each image, `[N * H * W + 1, C]`; the last row is for places outside."""
        if outside not in self.tables:
            n, c, h, w = self.shape
            rows = self.values().permute(0, 2, 3, 1).reshape(-1, c)
            self.tables[outside] = torch.cat([rows, rows.new_full((1, c), outside)])
            self.clean = self.tables[outside][:-1].view(n, h, w, c).permute(0, 3, 1, 2)
        return self.tables[outside]


@dataclass(frozen=True)
class Place:
    """Hold the rectangles: the number of each sample's known image, int64 `[S]`, and their rows and columns."""

    image: Tensor
    rows: Intervals
    columns: Intervals

    @property
    def share(self) -> float:
        """Return the share of the map that a rectangle covers."""
        return self.rows.size * self.columns.size / (self.rows.length * self.columns.length)

    def same(self, other: Place) -> bool:
        """Return whether the rectangles are the same."""
        return self.rows.same(other.rows) and self.columns.same(other.columns)

    def union(self, other: Place) -> Place:
        """Return the smallest rectangles that contain both."""
        return Place(self.image, self.rows.union(other.rows), self.columns.union(other.columns))


class Changed(Tensor):
    """A stand-in, without memory, for an activation `[S, C, H, W]`: the known one with a rectangle replaced.

    Attributes:
        node: the known activations.
        patch: the values in the rectangles, `[S, C, h, w]`; None for the known activations themselves.
        place: where the rectangles lie; None without a patch.
        uses: how many operations have read it.
        seen_twice: whether another stand-in is a view of the same values.
        whole: the full activations, once an operation needed them.
    """

    node: Node
    patch: Tensor | None
    place: Place | None
    uses: int
    seen_twice: bool
    whole: Tensor | None

    @staticmethod
    def __new__(cls: type[Changed], node: Node, patch: Tensor | None = None, place: Place | None = None) -> Changed:
        """Return a stand-in with the shape, dtype and device of the activation."""
        like = node.clean if patch is None else patch
        assert like is not None
        shape = (len(like), *node.shape[1:])
        made: Changed = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        made.node, made.patch, made.place = node, patch, place
        made.uses, made.seen_twice, made.whole = 0, False, None
        return made

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        """Raise NotReusable: outside of its pass, no operation can read a stand-in."""
        raise NotReusable("an activation was used after its pass")

    def become(self, other: Changed) -> None:
        """Take over the values of `other`, the result of an in-place operation."""
        self.node, self.patch, self.place, self.uses = other.node, other.patch, other.place, 0

    def dense(self) -> Tensor:
        """Return the full activations `[S, C, H, W]`, and keep them."""
        if self.whole is None:
            if self.place is None:
                self.whole = self.node.values().clone()
            else:
                zeros = torch.zeros_like(self.place.image)
                self.whole = self.crop(zeros, self.node.shape[2], zeros, self.node.shape[3])
        return self.whole

    def mean_of_places(self, *, keepdim: bool) -> Tensor:
        """Return the mean over all places, `[S, C]`: that of the known image, corrected where the values differ."""
        mean = self.node.means().clone()  # the network may write into it
        if self.patch is not None and self.place is not None:
            rows, columns, table = self.place.rows, self.place.columns, self.node.table(0.0)
            image, device = self.place.image.to(table.device), table.device
            i, j = _in_a_row(rows.start, rows.size, device), _in_a_row(columns.start, columns.size, device)
            at = _places(image, i, j, rows.length, columns.length, len(table) - 1)
            known = table.index_select(0, at.flatten()).view(len(image), -1, table.shape[1])
            change = (self.patch.permute(0, 2, 3, 1).reshape(known.shape) - known).sum(1)
            mean = mean[image] + change / (rows.length * columns.length)
        return mean[:, :, None, None] if keepdim else mean

    def crop(self, top: Tensor, height: int, left: Tensor, width: int, outside: float = 0.0) -> Tensor:
        """Return another rectangle of every sample, `[S, C, height, width]`, whose first place is `top`, `left` `[S]`.

        Places outside the map have the value `outside`.
        """
        assert self.patch is not None and self.place is not None
        rows, columns, device = self.place.rows, self.place.columns, self.patch.device
        table, image = self.node.table(outside), self.place.image.to(device)
        samples = torch.arange(len(image), device=device)
        i, j = _in_a_row(top, height, device), _in_a_row(left, width, device)
        # read the known values
        known = _places(image, i, j, rows.length, columns.length, len(table) - 1)
        made = table.new_empty(known.numel() + 1, table.shape[1])  # the last row takes what lies outside
        torch.index_select(table, 0, known.flatten(), out=made[:-1])
        # write the values of the patch over them
        i, j = _in_a_row(rows.start - top, rows.size, device), _in_a_row(columns.start - left, columns.size, device)
        onto = _places(samples, i, j, height, width, len(made) - 1)
        made.index_copy_(0, onto.flatten(), self.patch.permute(0, 2, 3, 1).reshape(-1, table.shape[1]))
        return made[:-1].view(len(image), height, width, -1).permute(0, 3, 1, 2)


class Unread(Tensor):
    """A stand-in for a second result of an operation, such as the indices of max-pooling; nothing may read it."""

    @staticmethod
    def __new__(cls: type[Unread], like: Tensor) -> Unread:
        """Return a stand-in with the shape, dtype and device of a tensor."""
        made: Unread = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)
        return made

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        """Raise NotReusable: no operation can read it."""
        raise NotReusable("the network reads a second result of an operation, such as the indices of max-pooling")


def _in_a_row(start: Tensor, size: int, device: torch.device) -> Tensor:
    """Return `size` consecutive integers from each start, `[S, size]`."""
    return start.to(device)[:, None] + torch.arange(size, device=device)


def _places(image: Tensor, i: Tensor, j: Tensor, height: int, width: int, outside: int) -> Tensor:
    """Return the row of a table for each place, `[S, h, w]`; the row is `outside` for a place outside the map."""
    number = (image[:, None] * height + i)[:, :, None] * width + j[:, None, :]
    inside = ((i >= 0) & (i < height))[:, :, None] & ((j >= 0) & (j < width))[:, None, :]
    return number.where(inside, outside)
