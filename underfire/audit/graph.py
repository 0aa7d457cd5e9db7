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


class Schedule:
    """The cells of a run that remain to be computed, and those among them that can be started.

    Args:
        cells: the cells that have to be computed, by key.

    Attributes:
        left: the cells that are not done yet, by key.
    """

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.left = dict(cells)
        self._readers = readers(cells.values())
        self._waits = {key: sum(need.key in cells for need in cell.needs.values()) for key, cell in cells.items()}
        self._ready: list[Cell] = []  # can be started
        self._running: dict[str, Cell] = {}
        self._admit(key for key, count in self._waits.items() if count == 0)

    def start(self, room: float) -> list[Cell]:
        """Return the cells that can be started now, those that take longest first; they count as running from then on.

        A cell can be started if its needs are done and the arrays that it stores fit into `room`, together with those
        of the running cells. Cells that store no arrays are not limited, so that arrays can be deleted before new ones
        are added. If nothing is running, at least one cell is returned until all are done.

        Args:
            room: number of bytes of arrays that may be added to the store.
        """
        room -= sum(cell.kept_bytes for cell in self._running.values())
        started, waiting = list[Cell](), list[Cell]()
        for cell in self._ready:
            fits = not cell.kept_bytes or cell.kept_bytes <= room or not (started or self._running)
            (started if fits else waiting).append(cell)
            room -= cell.kept_bytes if fits else 0
        self._ready = waiting
        self._running |= {cell.key: cell for cell in started}
        return sorted(started, key=lambda cell: cell.kind != "probe")

    def finish(self, cell: Cell) -> None:
        """Mark a running cell as done; the cells that waited for it alone can be started."""
        del self.left[cell.key]
        self._running.pop(cell.key, None)
        freed = []
        for key in self._readers.get(cell.key, ()):
            self._waits[key] -= sum(need.key == cell.key for need in self.left[key].needs.values())
            freed += [key] if self._waits[key] == 0 else []
        self._admit(freed)

    def _admit(self, keys: Iterable[str]) -> None:
        """Add cells to those that can be started: first the cells that store no arrays, then those with long chains."""
        self._ready += [self.left[key] for key in keys]
        self._ready.sort(key=lambda cell: (bool(cell.kept_bytes), -depth(cell) if cell.kept_bytes else 0))


def depth(cell: Cell) -> int:
    """Return the length of the longest chain of needs that starts at a cell; 0 for a cell without needs."""
    return 1 + max(map(depth, cell.needs.values())) if cell.needs else 0


def readers(cells: Iterable[Cell]) -> dict[str, dict[str, None]]:
    """Return, for the key of each needed cell, the keys of the cells that need it, in the order of `cells`."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for need in cell.needs.values():
            found.setdefault(need.key, {})[cell.key] = None
    return found
