"""Choose how many images a cell has: few enough for a minute, and as many as before when a run continues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from underfire.audit.costs import Cost, Estimates
from underfire.audit.kinds import clean, probe
from underfire.audit.ledger import read_head
from underfire.audit.masking import IMAGES, subject
from underfire.audit.methods import of_batch
from underfire.audit.plan import plan
from underfire.audit.schema import LARGEST_SHARD, AttackSpec, AuditSpec
from underfire.audit.store import Store
from underfire.audit.target import Target
from underfire.errors import LedgerError

MINUTE = 60.0
"""The time in seconds that a cell should take at most, so that a killed run loses little."""


def with_shard_sizes(spec: AuditSpec, target: Target, estimates: Estimates, store: Store) -> AuditSpec:
    """Return the spec with a `shard_size` and a `masking_shard_size`; one that lacks them gets them here.

    They are those of the results which the store has for the same model and data, so that a run that continues keeps
    them. Without such results, they follow the measured speed of the model: the largest of 64, 32, 16, ... with which
    no cell takes more than `MINUTE`. A perturbation that all images of a cell share, and a target map from another
    image of the cell, depend on their number, and not only on random numbers; cells with such an attack get 64.

    Args:
        spec: a complete spec.
        target: the opened spec.
        estimates: estimates of what cells cost.
        store: the store of the run.
    """
    keys = store.keys()

    def chosen(spec: AuditSpec, key: str, kind: ModuleType, attacks: Sequence[AttackSpec], count: int) -> AuditSpec:
        """Return the spec with one of the two numbers, which the cells of a kind show."""
        for size in _sizes(store, key) if keys else ():
            sized = spec.model_copy(update={key: size})
            first = tuple(clean.cells(sized, target, ()))
            if any(cell.key in keys for cell in (first if kind is clean else kind.cells(sized, target, first))):
                return sized
        size = min(LARGEST_SHARD, spec.shard_size or LARGEST_SHARD)
        if not any(entry.card.facts.universal or of_batch(entry) for entry in attacks):
            costs = estimates.costs(cell for cell in plan(spec, target) if (cell.kind == "probe") == (kind is probe))
            size = fitting(size, count, costs)
        return spec.model_copy(update={key: size})

    if spec.shard_size is None:
        spec = chosen(spec, "shard_size", clean, spec.attacks, len(target.data))
    if spec.masking and spec.masking_shard_size is None:
        spec = chosen(spec, "masking_shard_size", probe, [subject(spec)], min(IMAGES, len(target.data)))
    return spec


def fitting(size: int, images: int, found: Iterable[Cost]) -> int:
    """Return `size`, halved until no cell takes more than `MINUTE`.

    Args:
        size: the number of images in a cell.
        images: the number of all images.
        found: the costs of the cells.
    """
    each = max((cost.slowest for cost in found), default=0.0)
    while size > 1 and min(size, images) * each > MINUTE:
        size //= 2
    return size


def _sizes(store: Store, key: str) -> Iterator[int]:
    """Yield the sizes that an earlier run may have had: the one that it recorded, and those that are chosen here."""
    try:
        recorded = read_head(store, store.url).get("spec", {}).get(key)
    except LedgerError:  # a damaged head is written anew
        recorded = None
    if isinstance(recorded, int) and recorded > 0:
        yield recorded
    size = LARGEST_SHARD
    while size:
        yield size
        size //= 2
