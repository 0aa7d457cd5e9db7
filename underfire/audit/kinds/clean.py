"""`clean`: the logits of the clean images of one shard, which are computed once and read by every other cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from underfire.audit.graph import Cell
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import LARGEST_SHARD, AuditSpec
from underfire.audit.target import Target
from underfire.measures.prediction import confidence

schema = columns("id:s y:i pred:i conf:f")
about = columns("")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell for each shard; its options name the model, the data and the device."""
    count = len(target.data)
    shards = math.ceil(count / (spec.shard_size or LARGEST_SHARD))
    for index in range(shards):
        options = {**target.origin, "shard": [index, shards]}
        images = len(range(index, count, shards))
        yield Cell("clean", options, about={"title": "clean images"}, images=images)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the predictions of the images as rows, and their logits `[B, K]` as an array."""
    batch, result = inputs.batch(cell), Result()
    logits = inputs.target.logits(batch)
    pred = logits.argmax(1)
    result.add(len(batch), id=list(batch.ids), y=batch.y, pred=pred, conf=confidence(logits, pred))
    result.arrays["logits"] = logits
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the predictions as the table `clean`."""
    return {"clean": "SELECT id, y, pred, conf FROM clean_written"}
