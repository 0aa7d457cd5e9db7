"""Activations that differ from known ones in a rectangle, as a tensor that stands for them inside a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from underfire.incremental.intervals import Intervals


class NotReusable(Exception):
    """The network did not do the same twice, or writes into an activation that it also sees elsewhere."""


@dataclass(eq=False)
class Node:
    """One activation `[N, C, H, W]` of the known images, and what the network made of it, in order."""

    clean: Tensor | None
    shape: torch.Size
    needed: bool = False
    children: list[tuple[Any, list[Any], list[Node]] | None] = field(default_factory=list)
    tables: dict[float, Tensor] = field(default_factory=dict)

    def values(self) -> Tensor:
        """The activations; only those are kept that the first pass found a use for."""
        if self.clean is None:
            raise NotReusable("the network needs an activation that it did not need before")
        return self.clean

    def table(self, outside: float) -> Tensor:
        """One row of channels for every place of every image, and a last one for the places outside the map."""
        if outside not in self.tables:
            n, c, h, w = self.shape
            rows = self.values().permute(0, 2, 3, 1).reshape(-1, c)
            self.tables[outside] = torch.cat([rows, rows.new_full((1, c), outside)])
            self.clean = self.tables[outside][:-1].view(n, h, w, c).permute(0, 3, 1, 2)
        return self.tables[outside]


@dataclass(frozen=True)
class Place:
    """Where the rectangles lie: which known image each sample is of, int64 `[S]`, its rows and its columns."""

    image: Tensor
    rows: Intervals
    columns: Intervals

    @property
    def share(self) -> float:
        """How much of the map a rectangle covers."""
        return self.rows.size * self.columns.size / (self.rows.length * self.columns.length)

    def same(self, other: Place) -> bool:
        """Whether the rectangles are the same."""
        return self.rows.same(other.rows) and self.columns.same(other.columns)

    def union(self, other: Place) -> Place:
        """Rectangles that hold both."""
        return Place(self.image, self.rows.union(other.rows), self.columns.union(other.columns))


class Changed(Tensor):
    """Stands for `[S, C, H, W]`; or, without a patch, for the known activations themselves.

    Attributes:
        node: the known activations.
        patch: what is in the rectangles, `[S, C, h, w]`. place: where they are.
        uses: how many operations have read it.
        seen_twice: whether another stand-in is a view of the same values.
        whole: the activations themselves, once something asked for them.
    """

    node: Node
    patch: Tensor | None
    place: Place | None
    uses: int
    seen_twice: bool
    whole: Tensor | None

    @staticmethod
    def __new__(cls: type[Changed], node: Node, patch: Tensor | None = None, place: Place | None = None) -> Changed:
        """A stand-in of the right shape, without values."""
        like = node.clean if patch is None else patch
        assert like is not None
        shape = (len(like), *node.shape[1:])
        made: Changed = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        made.node, made.patch, made.place = node, patch, place
        made.uses, made.seen_twice, made.whole = 0, False, None
        return made

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        """Nothing happens to it outside of its pass."""
        raise NotReusable("an activation was used after its pass")

    def become(self, other: Changed) -> None:
        """Be what an operation in place has made of it."""
        self.node, self.patch, self.place, self.uses = other.node, other.patch, other.place, 0

    def dense(self) -> Tensor:
        """The activations themselves, which it is from now on."""
        if self.whole is None:
            if self.place is None:
                self.whole = self.node.values().clone()
            else:
                zeros = torch.zeros_like(self.place.image)
                self.whole = self.crop(zeros, self.node.shape[2], zeros, self.node.shape[3])
        return self.whole

    def crop(self, top: Tensor, height: int, left: Tensor, width: int, outside: float = 0.0) -> Tensor:
        """Of every sample the rectangle `[S, C, height, width]` that begins at row `top` and column `left`, `[S]`.

        What lies outside the map has the value `outside`.
        """
        assert self.patch is not None and self.place is not None
        rows, columns, device = self.place.rows, self.place.columns, self.patch.device
        table, image = self.node.table(outside), self.place.image.to(device)
        samples = torch.arange(len(image), device=device)
        i, j = _in_a_row(top, height, device), _in_a_row(left, width, device)
        known = _places(image, i, j, rows.length, columns.length, len(table) - 1)
        made = table.new_empty(known.numel() + 1, table.shape[1])  # the last row takes what is not wanted
        torch.index_select(table, 0, known.flatten(), out=made[:-1])
        i, j = _in_a_row(rows.start - top, rows.size, device), _in_a_row(columns.start - left, columns.size, device)
        onto = _places(samples, i, j, height, width, len(made) - 1)
        made.index_copy_(0, onto.flatten(), self.patch.permute(0, 2, 3, 1).reshape(-1, table.shape[1]))
        return made[:-1].view(len(image), height, width, -1).permute(0, 3, 1, 2)


class Unread(Tensor):
    """Stands for what an operation gives beside its map, such as where each maximum was; nothing may read it."""

    @staticmethod
    def __new__(cls: type[Unread], like: Tensor) -> Unread:
        """One of the shape and type of a tensor."""
        made: Unread = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)
        return made

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise NotReusable("the network reads what an operation gives beside its map")


def _in_a_row(start: Tensor, size: int, device: torch.device) -> Tensor:
    """`size` numbers in a row from every start, `[S, size]`."""
    return start.to(device)[:, None] + torch.arange(size, device=device)


def _places(image: Tensor, i: Tensor, j: Tensor, height: int, width: int, outside: int) -> Tensor:
    """The numbers `[S, h, w]` of places in a table of images of a size; `outside` for a place that is in none."""
    number = (image[:, None] * height + i)[:, :, None] * width + j[:, None, :]
    inside = ((i >= 0) & (i < height))[:, :, None] & ((j >= 0) & (j < width))[:, None, :]
    return number.where(inside, outside)
