"""`sample`: the images that every source and every victim classifies correctly; only these count for transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from underfire.audit.graph import Cell
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.sampling import hash_of
from underfire.audit.schema import AuditSpec
from underfire.audit.target import Target
from underfire.errors import DataError

schema = columns("id:s y:i counted:b hash:s")
about = columns("")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell, which reads the predictions of all sources and victims; none without victims."""
    predicted = {
        f"{cell.about['role']} {cell.about['model']} {cell.options['shard'][0]}": cell
        for cell in before
        if cell.kind == "answer"
    }
    if predicted:
        yield Cell("sample", {"columns": schema.names}, predicted, {"title": "images that all models get right"})


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return every image with whether it counts, and the hash of those that do.

    Raises:
        DataError: no image is right for all.
    """
    result, shards = Result(), dict[int, list[Cell]]()
    for need in cell.needs.values():
        shards.setdefault(need.options["shard"][0], []).append(need)
    kept, alone = [], dict.fromkeys((role.rpartition(" ")[0] for role in cell.needs), 0)
    for index in sorted(shards):
        batch = inputs.batch(shards[index][0]).to("cpu")
        right = torch.stack([inputs.arrays(need)["right"].cpu().bool() for need in shards[index]])
        counted = right.all(0)
        kept.append(batch.take(counted.nonzero().flatten()))
        result.add(len(batch), id=list(batch.ids), y=batch.y, counted=counted)
        for name in alone:
            role = f"{name} {index}"
            alone[name] += int(inputs.arrays(cell.needs[role])["right"].sum())
    images = len(result.table["id"])
    if not any(result.table["counted"]):
        each = ", ".join(f"{name} {count}" for name, count in alone.items())
        raise DataError(f"none of {images} images is classified correctly by all models ({each}); give more images")
    result.add(images, hash=hash_of(kept))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show every image, with whether it counts for transfer, as the table `sample`."""
    return {"sample": "SELECT id, y, counted, hash FROM sample_written"}
