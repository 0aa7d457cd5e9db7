"""A complete spec as cells."""

from __future__ import annotations

from underfire.audit.graph import Cell
from underfire.audit.kinds import KINDS
from underfire.audit.schema import AuditSpec
from underfire.audit.target import Target, open_target


def plan(spec: AuditSpec, target: Target | None = None) -> list[Cell]:
    """Return the cells of a complete spec, each after those that it needs.

    Two cells may have one key, where a spec has the same method under two labels; it is computed once.

    Args:
        spec: as `load_spec` or `parse_spec` gives it.
        target: the spec, opened; None opens it.
    """
    target = target or open_target(spec)
    cells: list[Cell] = []
    for kind in KINDS.values():
        cells += kind.cells(spec, target, tuple(cells))
    return cells
