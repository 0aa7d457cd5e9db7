"""The budget for the arrays that a run keeps in its store, such as adversarial images and maps."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from underfire.audit.graph import Cell, readers
from underfire.audit.result import arrays_key
from underfire.audit.store import Damaged, Store


class KeptArrays:
    """The arrays in the store of a run; above the budget, those that no remaining cell needs are deleted.

    Arrays of earlier runs are deleted first, then others in the order in which the last cell that needed them ended.
    Arrays with a damaged manifest are deleted at once; the cell that needs them makes them again.

    Args:
        store: the store of the run.
        keys: all keys in the store.
        left: the cells that remain to be computed, by key.
        limit: the budget in bytes.
    """

    def __init__(self, store: Store, keys: Collection[str], left: Mapping[str, Cell], limit: float) -> None:
        self._store, self._limit = store, limit
        self._waiting = {need: set(cells) for need, cells in readers(left.values()).items()}
        self._sizes: dict[str, int] = {}  # by key of the cell
        self._total = 0
        self._unneeded: dict[str, None] = {}  # keys of cells, the first to delete first
        for key in sorted(key.split("-")[0] for key in keys if key == arrays_key(key.split("-")[0])):
            try:
                self._add(key)
            except Damaged:
                store.delete(arrays_key(key))

    @property
    def room(self) -> float:
        """The number of bytes that are left of the budget; negative above it."""
        return self._limit - self._total

    def finished(self, cell: Cell) -> None:
        """Count the arrays of a finished cell, and keep to the budget."""
        if cell.kept_bytes:
            self._add(cell.key)
        for need in cell.needs.values():
            waiting = self._waiting.get(need.key, set())
            waiting.discard(cell.key)
            if not waiting and need.key in self._sizes:
                self._unneeded[need.key] = None
        self.trim()

    def trim(self) -> None:
        """Above the budget, delete arrays that no remaining cell needs."""
        while self.room < 0 and self._unneeded:
            key = next(iter(self._unneeded))
            self._store.delete(arrays_key(key))
            self._total -= self._sizes.pop(key)
            del self._unneeded[key]

    def _add(self, key: str) -> None:
        """Count the arrays of a cell."""
        size = self._store.size(arrays_key(key))
        self._total += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        if not self._waiting.get(key):
            self._unneeded[key] = None
