"""`gallery`: images of one attack that are right before it, with their maps, stored for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from underfire.audit.graph import Cell
from underfire.audit.kinds.craft import adversarial
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec
from underfire.audit.target import Target
from underfire.errors import Unsupported

schema = columns("id:s")
about = columns("craft:s interpreters:l")

# Not every image is right before the attack, and the report chooses among those that are.
_LOOKED, _STORED = 4, 2  # times the number of images on the page


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every craft cell of the first shards; none if the spec has `gallery: 0`."""
    maps = {
        (cell.about["interpreter"], cell.needs.get("craft", cell.needs["clean"]).key): cell
        for cell in before
        if cell.kind == "explain"
    }
    titles = [entry.title for entry in spec.interpreters]
    for craft in before if spec.gallery else ():
        if craft.kind != "craft":
            continue
        index, _ = craft.needs["clean"].options["shard"]
        if index * craft.images >= _LOOKED * spec.gallery:
            continue
        needs = {"clean": craft.needs["clean"], "craft": craft}
        for i, title in enumerate(titles):
            needs[f"map_clean.{i}"] = maps[title, needs["clean"].key]
            needs[f"map_adv.{i}"] = maps[title, craft.key]
        description = {"title": f"gallery of {craft.title}", "craft": craft.key, "interpreters": titles}
        yield Cell("gallery", {"right": _STORED * spec.gallery}, needs, description)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the first images that are classified correctly, clean and adversarial, and their maps, as arrays."""
    batch = inputs.batch(cell)
    right = inputs.arrays(cell.needs["clean"])["logits"].argmax(1) == batch.y
    chosen = right.nonzero().flatten()[: cell.options["right"]]
    if not len(chosen):
        return Result()
    found = {"x": batch.x, "x_adv": adversarial(cell.needs["craft"], inputs)[0]}
    for role, need in cell.needs.items():
        with suppress(Unsupported):  # the interpreter cannot be run on this model
            if role.startswith("map_"):
                found[role] = inputs.arrays(need)["map"]
    result = Result(arrays={name: value[chosen] for name, value in found.items()})
    result.add(len(chosen), id=[batch.ids[i] for i in chosen.tolist()])
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the names of the images in the gallery of each craft cell as the table `gallery`."""
    return {"gallery": "SELECT cell, craft, id FROM gallery_written JOIN gallery_cells USING (cell)"}
