"""The audit as a graph: cells that need other cells, and the order in which they can be computed.

The key of a cell is a hash of its kind, its own options and the keys of the cells it needs, and of nothing else. So a
result is found again for as long as nothing that determines it has changed, whatever else the audit contains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True, eq=False)
class Cell:
    """One independent part of an audit.

    Attributes:
        kind: the name of its kind, one of `underfire.audit.kinds.KINDS`.
        options: plain values that determine the result.
        needs: the cells whose results it reads, by the role that they play.
        about: plain values that tell a reader what the result is, such as a label; they determine nothing.
        images: how many images it asks the model about; 0 if it asks the model nothing.
        kept_bytes: about how many bytes of arrays it leaves for the cells that need it.
    """

    kind: str
    options: Mapping[str, Any]
    needs: Mapping[str, Cell] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0
    kept_bytes: int = 0

    @cached_property
    def key(self) -> str:
        """The name of the result: a SHA-256 in hexadecimal digits."""
        what = [self.kind, self.options, {role: cell.key for role, cell in self.needs.items()}]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """What the cell computes, for a reader."""
        return str(self.about.get("title", self.kind))

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain values, for the ledger."""
        needs = {role: cell.key for role, cell in self.needs.items()}
        return {"key": self.key, "kind": self.kind, "needs": needs, "images": self.images, "about": dict(self.about)}


def to_compute(cells: Iterable[Cell], done: Collection[str], with_arrays: Collection[str]) -> dict[str, Cell]:
    """Return the cells that have to be computed, by key, each after those that it needs.

    A cell that is done has to be computed again if a new cell reads its arrays and they were dropped.

    Args:
        cells: the plan.
        done: keys of the cells that have a result.
        with_arrays: keys of the cells whose arrays are there, if they leave any.
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
    """Return the cells that can be computed now, because all that they need is done.

    While there is room for arrays these are all such cells. Where there is not, cells that only read arrays come alone,
    so that arrays can be dropped before new ones are made; at least one cell is always returned.

    Args:
        left: the cells that are still to be computed, by key.
        room: how many bytes of arrays may be added.
    """
    ready = [cell for cell in left.values() if not any(need.key in left for need in cell.needs.values())]
    wave = [cell for cell in ready if not cell.kept_bytes]
    for cell in sorted((c for c in ready if c.kept_bytes), key=lambda c: -depth(c)):
        room -= cell.kept_bytes
        if room >= 0 or not wave:
            wave.append(cell)
    return wave


def depth(cell: Cell) -> int:
    """Return the length of the longest chain of needs below a cell."""
    return 1 + max(map(depth, cell.needs.values())) if cell.needs else 0


def readers(cells: Iterable[Cell]) -> dict[str, set[str]]:
    """Return the keys of the cells that need each cell, by its key."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        for need in cell.needs.values():
            found.setdefault(need.key, set()).add(cell.key)
    return found
