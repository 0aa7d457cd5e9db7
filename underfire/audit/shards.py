"""Choose how many images a cell has: few enough for a minute, and as many as before when a run continues."""

from __future__ import annotations

from collections.abc import Iterator

from underfire.audit.costs import Cost, Estimates
from underfire.audit.kinds import clean
from underfire.audit.ledger import read_head
from underfire.audit.methods import of_batch
from underfire.audit.plan import plan
from underfire.audit.schema import LARGEST_SHARD, AuditSpec
from underfire.audit.store import Store
from underfire.audit.target import Target
from underfire.errors import LedgerError

MINUTE = 60.0
"""The time in seconds that a cell should take at most, so that a killed run loses little."""


def with_shard_size(spec: AuditSpec, target: Target, estimates: Estimates, store: Store) -> AuditSpec:
    """Return the spec with a `shard_size`; one that has none gets it here.

    It is that of the results which the store has for the same model and data, so that a run that continues keeps them.
    Without such results, it follows the measured speed of the model: the largest of 64, 32, 16, ... with which no cell
    takes more than `MINUTE`. A perturbation that all images of a cell share, and a target map from another image of the
    cell, depend on their number, and not only on random numbers; a spec with such an attack gets 64.

    Args:
        spec: a complete spec.
        target: the opened spec.
        estimates: estimates of what cells cost.
        store: the store of the run.
    """
    if spec.shard_size is not None:
        return spec
    keys = store.keys()
    sizes = _sizes(store) if keys else iter(())
    for size in sizes:
        sized = spec.model_copy(update={"shard_size": size})
        if any(cell.key in keys for cell in clean.cells(sized, target, ())):
            return sized
    size = LARGEST_SHARD
    if not any(entry.card.facts.universal or of_batch(entry) for entry in spec.attacks):
        size = fitting(size, len(target.data), estimates.costs(plan(spec, target)))
    return spec.model_copy(update={"shard_size": size})


def fitting(size: int, images: int, found: list[Cost]) -> int:
    """Return `size`, halved until no cell takes more than `MINUTE`; the masking checks have their own images.

    Args:
        size: the number of images in a cell.
        images: the number of all images.
        found: the costs of the cells.
    """
    each = max((cost.seconds / cost.images for cost in found if cost.images and cost.kind != "masking"), default=0.0)
    while size > 1 and min(size, images) * each > MINUTE:
        size //= 2
    return size


def _sizes(store: Store) -> Iterator[int]:
    """Yield the sizes that an earlier run may have had: the one that it recorded, and those that are chosen here."""
    try:
        recorded = read_head(store, store.url).get("spec", {}).get("shard_size")
    except LedgerError:  # a damaged head is written anew
        recorded = None
    if isinstance(recorded, int) and recorded > 0:
        yield recorded
    size = LARGEST_SHARD
    while size:
        yield size
        size //= 2
