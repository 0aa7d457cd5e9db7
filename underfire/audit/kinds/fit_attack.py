"""`fit_attack`: the images that supervised detectors are fitted to, after one attack.

They are the held-out images of the fit. No threshold is chosen from them, and the audit does not attack them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from underfire.audit.arrays import difference, restore
from underfire.audit.goals import choose_goal, other_than_label
from underfire.audit.graph import Cell
from underfire.audit.kinds import craft
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import LARGEST_SHARD, AttackSpec, AuditSpec
from underfire.audit.target import Target
from underfire.records import Batch

schema = None
about = columns("label:s")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells of every attack that a detector learns from, for the first seed.

    They need the first clean cell only because the key of that cell depends on the model.
    """
    learned = {label for entry in spec.detectors for label in entry.learns_from or ()}
    if not learned:
        return
    digest, count = target.held_out[1], len(target.held_out_halves[0])
    attacks = [entry for entry in spec.attacks if entry.title in learned]
    pixels = target.preview.first.x[0].numel()
    for entry, options, _ in craft.runs(spec.model_copy(update={"attacks": attacks, "seeds": spec.seeds[:1]})):
        for start in range(0, count, LARGEST_SHARD):
            stop = min(start + LARGEST_SHARD, count)
            own, images = {**options, "held_out": digest, "rows": [start, stop]}, stop - start
            description = {"title": f"{entry.title} on images that detectors learn from", "label": entry.title}
            needs = {"clean": before[0]}
            yield Cell("fit_attack", own, needs, description, images=images, kept_bytes=images * pixels * 4)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Attack a part of the images at the largest size of the cell."""
    options, model, batch = cell.options, inputs.target.model, _images(cell, inputs)
    entry = AttackSpec.model_validate({**options["attack"], "interpreter": options["interpreter"]})
    logits = model.predict(batch.x, chunk=inputs.target.spec.batch_size)
    goal = choose_goal(entry.goal, logits, batch, options["seed"], model.labels or ())
    goal = other_than_label(goal, batch.y, logits.shape[1])
    x_adv = craft.attacked(entry, options["sizes"][0], model, batch, goal, options["seed"])
    return Result(arrays={"x_adv": difference(model.domain.clip(x_adv), batch.x)})


def views(spec: AuditSpec) -> dict[str, str]:
    """Return no table: only detectors read these images."""
    return {}


def _images(cell: Cell, inputs: Inputs) -> Batch:
    """Return the clean images of a cell."""
    return inputs.target.held_out_halves[0].take(torch.arange(*cell.options["rows"])).to(inputs.device)


def joined(cells: Sequence[Cell], inputs: Inputs) -> Batch | None:
    """Return the attacked images of several cells with the labels and the names of the clean ones; None of none."""
    parts = [(_images(cell, inputs), inputs.arrays(cell)["x_adv"]) for cell in cells]
    if not parts:
        return None
    x = torch.cat([restore(bits, batch.x) for batch, bits in parts])
    names = tuple(name for batch, _ in parts for name in batch.ids)
    return Batch(x, torch.cat([batch.y for batch, _ in parts]), names)
