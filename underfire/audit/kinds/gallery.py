"""`gallery`: the first images of one attack with their maps, stored for the report."""

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


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every craft cell of the first shard; none if the spec has `gallery: 0`."""
    maps = {
        (cell.about["interpreter"], cell.needs.get("craft", cell.needs["clean"]).key): cell
        for cell in before
        if cell.kind == "explain"
    }
    titles = [entry.title for entry in spec.interpreters]
    for craft in before if spec.gallery else ():
        if craft.kind != "craft" or craft.needs["clean"].options["shard"][0] > 0:
            continue
        needs = {"clean": craft.needs["clean"], "craft": craft}
        for i, title in enumerate(titles):
            needs[f"map_clean.{i}"] = maps[title, needs["clean"].key]
            needs[f"map_adv.{i}"] = maps[title, craft.key]
        description = {"title": f"gallery of {craft.title}", "craft": craft.key, "interpreters": titles}
        yield Cell("gallery", {"count": spec.gallery}, needs, description)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the first images, clean and adversarial, and their maps, as arrays."""
    count, batch = cell.options["count"], inputs.batch(cell)
    found = {"x": batch.x, "x_adv": adversarial(cell.needs["craft"], inputs)[0]}
    for role, need in cell.needs.items():
        with suppress(Unsupported):  # the interpreter cannot be run on this model
            if role.startswith("map_"):
                found[role] = inputs.arrays(need)["map"]
    result = Result(arrays={name: value[:count] for name, value in found.items()})
    result.add(len(batch.ids[:count]), id=list(batch.ids[:count]))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the names of the images in the gallery of each craft cell as the table `gallery`."""
    return {"gallery": "SELECT cell, craft, id FROM gallery_written JOIN gallery_cells USING (cell)"}
