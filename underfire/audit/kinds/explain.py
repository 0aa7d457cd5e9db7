"""`explain`: the maps of one interpreter for the images of one shard, either clean or after one attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from underfire.audit.graph import Cell
from underfire.audit.kinds.craft import adversarial
from underfire.audit.methods import interpreter_of
from underfire.audit.named_files import with_files
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, InterpreterSpec
from underfire.audit.target import Target

schema = None
about = columns("")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every interpreter and shard, and a cell for every interpreter and craft cell."""
    size = max(1, target.preview.first.x[0, 0].numel() * 4)
    for entry in spec.interpreters:
        options = with_files({"interpreter": entry.model_dump(exclude={"label"})}, entry)
        for cell in before:
            if cell.kind == "clean":
                needs, of = {"clean": cell}, "clean images"
            elif cell.kind == "craft":
                needs, of = {"clean": cell.needs["clean"], "craft": cell}, cell.title
            else:
                continue
            description = {"title": f"{entry.title} of {of}", "interpreter": entry.title}
            yield Cell("explain", options, needs, description, images=cell.images, kept_bytes=cell.images * size)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the maps `[B, 1, h, w]` of the predicted classes, as an array; pixels are clipped to the box."""
    interpreter = interpreter_of(InterpreterSpec.model_validate(cell.options["interpreter"]))
    x, logits = inputs.batch(cell).x, inputs.arrays(cell.needs["clean"])["logits"]
    if "craft" in cell.needs:
        x, logits = adversarial(cell.needs["craft"], inputs)
    model = inputs.target.model
    return Result(arrays={"map": interpreter(model, model.domain.clip(x), logits.argmax(1)).detach()})


def views(spec: AuditSpec) -> dict[str, str]:
    """Return no table: the maps are arrays, which the cells of measures and of the gallery read."""
    return {}
