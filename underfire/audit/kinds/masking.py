"""`masking`: the checks for masked gradients, which show whether the results of the audit can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from underfire.audit import masking
from underfire.audit.graph import Cell
from underfire.audit.methods import attack_of
from underfire.audit.named_files import with_files
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.target import Target

schema = columns("name:s passed:b value:f limit:f detail:s rival:s hits:i images:i")
about = columns("label:s norm:s eps:f")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell, for the checked attack at its middle size above 0; none if the spec has `masking: false`.

    It needs the first clean cell only because the key of that cell depends on the model and the data.
    """
    if spec.masking:
        entry = masking.subject(spec)
        sizes = sorted(eps for eps in entry.eps if eps > 0)
        eps = sizes[len(sizes) // 2]
        options = {"attack": entry.model_dump(exclude={"label", "eps"}), "eps": eps, "seed": spec.seeds[0]}
        options = with_files({**options, "columns": schema.names}, entry, *filter(None, [entry.interpreter]))
        images = min(masking.IMAGES, len(target.data))
        description = {"title": "masking checks", "label": entry.title, "norm": entry.norm, "eps": eps}
        yield Cell("masking", options, {"clean": before[0]}, description, images=images)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Run the checks on images that are evenly spread over the data."""
    target, result = inputs.target, Result()
    entry, eps, seed = AttackSpec.model_validate(cell.options["attack"]), cell.options["eps"], cell.options["seed"]
    batch = target.data[target.spread(cell.images)].to(inputs.device)
    steps = entry.options.get("steps", entry.card.options["steps"].default)
    budget = masking.Budget(entry.norm or "linf", eps, steps, seed)
    attack = masking.with_step_size(attack_of(entry, eps), entry.card.options)
    for check in masking.checks(target.model, batch.x, batch.y, attack=attack, budget=budget):
        result.add(1, **vars(check))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the checks as the table `checks`."""
    outcome = ", ".join(f'"{name}"' for name in schema.names)
    return {"checks": f"SELECT {outcome}, label, norm, eps FROM masking_written JOIN masking_cells USING (cell)"}
