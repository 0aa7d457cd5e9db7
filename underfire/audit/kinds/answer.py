"""`answer`: what one source or victim predicts for the clean images of one shard.

A random victim is evaluated several times, and an image counts as right if most of the predictions are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from underfire.audit.graph import Cell
from underfire.audit.kinds import clean
from underfire.audit.opening import is_random, seed_for
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, SourceSpec, VictimSpec
from underfire.audit.target import Target
from underfire.hooks import folded, frozen
from underfire.records import Batch

schema = columns("id:s y:i pred:i right:b")
about = columns("model:s role:s")

CHUNK = 64  # images that a random victim gets at once; its random draws depend on it, so it is no option


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every source and victim and every shard."""
    for role, entry in [*(("source", one) for one in spec.sources), *(("victim", one) for one in spec.victims)]:
        draws, identity = draws_of(entry, spec, target), target.others.identity(entry)
        for shard in clean.cells(spec, target, before):
            options = {**shard.options, "model": identity, "draws": draws}
            description = {"title": f"{entry.title} on clean images", "model": entry.title, "role": role}
            yield Cell("answer", options, {}, description, images=draws * shard.images)


def draws_of(entry: SourceSpec, spec: AuditSpec, target: Target) -> int:
    """Return how often a source or a victim is evaluated on each image."""
    return int(spec.draws or 1) if is_random(target.others.defended(entry)) else 1


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the predictions as rows; as arrays, whether they are right, and the logits `[B, K]` of the first draw."""
    batch, result = inputs.batch(cell), Result()
    logits = torch.stack(list(outputs(cell.options, batch.x, batch, inputs, "clean")))
    pred = logits.argmax(2)
    right = (pred == batch.y).float().mean(0) > 0.5
    result.add(len(batch), id=list(batch.ids), y=batch.y, pred=pred.mode(0).values, right=right)
    result.arrays |= {"logits": logits[0], "right": right.to(torch.uint8)}
    return result


def outputs(options: Mapping[str, Any], x: Tensor, batch: Batch, inputs: Inputs, what: str) -> Iterator[Tensor]:
    """Yield the logits `[B, K]` of a source or victim for images, once for every draw.

    Args:
        options: the options of a cell, with the `model` and the number of `draws`.
        x: images `[B, ...]`.
        batch: the clean images of the shard.
        inputs: the inputs of the cell.
        what: a text on which the random numbers depend, beside the first image.
    """
    model = inputs.target.others.open(entry_of(options), seed_for(what, batch.ids[0]))
    with frozen(model), folded(model, x):
        for _ in range(options["draws"]):
            yield model.predict(x, chunk=CHUNK if options["draws"] > 1 else inputs.target.spec.batch_size)


def entry_of(options: Mapping[str, Any]) -> VictimSpec:
    """Return the source or victim of a cell, without its label."""
    return VictimSpec.model_validate(options["model"]["of"])


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the predictions for clean images as the table `answers`."""
    query = 'SELECT DISTINCT model, role, id, y, pred, "right" FROM answer_written JOIN answer_cells USING (cell)'
    return {"answers": query}
