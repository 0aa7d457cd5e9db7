"""The graph of an audit: cells, the other cells that each needs, and the order in which they can be computed.

The key of a cell is a hash of its kind, its own options and the keys of the cells it needs, and of nothing else. So a
stored result can be reused as long as nothing that determines it has changed, whatever else the audit contains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from underfire.audit.values import as_text


@dataclass(frozen=True, eq=False)
class Cell:
    """One independent part of an audit.

    Attributes:
        kind: the name of its kind, one of `underfire.audit.kinds.KINDS`.
        options: plain values that determine the result.
        needs: the cells whose results this cell reads, by their role.
        about: plain values that describe the result to a reader, such as a label; they do not affect it.
        images: number of images that the cell passes through the model; 0 if it does not use the model.
        kept_bytes: approximate size in bytes of the arrays that it stores for other cells and that may be deleted
            when no cell needs them any more; 0 if there are no such arrays.
    """

    kind: str
    options: Mapping[str, Any]
    needs: Mapping[str, Cell] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0
    kept_bytes: int = 0

    @cached_property
    def key(self) -> str:
        """The name of the result in the store: a SHA-256 in hexadecimal digits."""
        content = [self.kind, self.options, {role: cell.key for role, cell in self.needs.items()}]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=as_text).encode()).hexdigest()

    @property
    def title(self) -> str:
        """A description of what the cell computes, for progress bars and error messages."""
        return str(self.about.get("title", self.kind))

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain values, for the ledger."""
        needs = {role: cell.key for role, cell in self.needs.items()}
        return {"key": self.key, "kind": self.kind, "needs": needs, "images": self.images, "about": dict(self.about)}


def to_compute(cells: Iterable[Cell], done: Collection[str], with_arrays: Collection[str]) -> dict[str, Cell]:
    """Return the cells that have to be computed, by key, each after those that it needs.

    A cell that has a result is computed again if its arrays were deleted and a new cell needs them.

    Args:
        cells: the plan.
        done: keys of the cells that have a result.
        with_arrays: keys of the cells whose arrays are in the store.
    """
    chosen: dict[str, Cell] = {}

    def choose(cell: Cell) -> None:
        if cell.key in chosen:
            return
        for need in cell.needs.values():
            if need.key not in done or (need.kept_bytes and need.key not in with_arrays):
                choose(need)
        chosen[cell.key] = cell

    for cell in cells:
        if cell.key not in done:
            choose(cell)
    return chosen


def next_wave(left: Mapping[str, Cell], room: float) -> list[Cell]:
    """Return the cells that can be computed now: those whose needs are all done.

    As long as the arrays that they store fit into `room`, all these cells are returned. Otherwise the cells that store
    none go first, so that arrays can be deleted before new ones are added. At least one cell is always returned.

    Args:
        left: the cells that remain to be computed, by key.
        room: number of bytes of arrays that may be added.
    """
    ready = [cell for cell in left.values() if not any(need.key in left for need in cell.needs.values())]
    wave = [cell for cell in ready if not cell.kept_bytes]
    for cell in sorted((c for c in ready if c.kept_bytes), key=lambda c: -depth(c)):
        room -= cell.kept_bytes
        if room >= 0 or not wave:
            wave.append(cell)
    return wave


def depth(cell: Cell) -> int:
    """Return the length of the longest chain of needs that starts at a cell; 0 for a cell without needs."""
    return 1 + max(map(depth, cell.needs.values())) if cell.needs else 0


def readers(cells: Iterable[Cell]) -> dict[str, set[str]]:
    """Return, for the key of each needed cell, the keys of the cells that need it."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        for need in cell.needs.values():
            found.setdefault(need.key, set()).add(cell.key)
    return found
