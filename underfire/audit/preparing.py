"""Prepare an audit: open and check its model and its data, try its methods, and plan its cells."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from underfire.audit.costs import Estimates
from underfire.audit.graph import Cell, to_compute
from underfire.audit.other_models import check_others
from underfire.audit.plan import plan
from underfire.audit.preflight import preflight
from underfire.audit.result import arrays_key
from underfire.audit.sampling import with_sample
from underfire.audit.schema import AuditSpec
from underfire.audit.shards import with_shard_sizes
from underfire.audit.store import Store
from underfire.audit.target import Target, open_target


@dataclass(frozen=True)
class Prepared:
    """An audit that is ready to run.

    Attributes:
        spec: its complete spec, with a `shard_size` and a `masking_shard_size`.
        target: its model and its data.
        cells: its plan.
        estimates: estimates of what its cells cost.
    """

    spec: AuditSpec
    target: Target
    cells: list[Cell]
    estimates: Estimates

    def left(self, keys: Collection[str]) -> dict[str, Cell]:
        """Return the cells that have to be computed, by key, where the store has `keys`."""
        return to_compute(self.cells, keys, {cell.key for cell in self.cells if arrays_key(cell.key) in keys})


def prepare(spec: AuditSpec, store: Store, target: Target | None = None) -> Prepared:
    """Return a complete spec, prepared; nothing is written.

    Args:
        spec: a complete spec.
        store: the store of the run, which may have results of the audit.
        target: the opened spec; None opens it.

    Raises:
        SpecError, ModelError, DataError: the spec, the model or the data is wrong.
    """
    target = target or open_target(spec)
    check_others(target)
    spec, target = with_sample(spec, target, store)
    estimates = Estimates(target, preflight(target))
    spec = with_shard_sizes(spec, target, estimates, store)
    return Prepared(spec, target, plan(spec, target), estimates)
