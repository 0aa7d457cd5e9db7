"""Planning: the cells of a complete spec."""

from __future__ import annotations

from underfire.audit.graph import Cell
from underfire.audit.kinds import KINDS
from underfire.audit.schema import AuditSpec
from underfire.audit.target import Target, open_target


def plan(spec: AuditSpec, target: Target | None = None) -> list[Cell]:
    """Return the cells of a complete spec, each after those that it needs.

    If a spec has the same method under two labels, two cells have the same key; it is computed once.

    Args:
        spec: a complete spec, as `load_spec` and `parse_spec` return it.
        target: the opened spec; None opens it.
    """
    target = target or open_target(spec)
    cells: list[Cell] = []
    for kind in KINDS.values():
        cells += kind.cells(spec, target, tuple(cells))
    return cells
