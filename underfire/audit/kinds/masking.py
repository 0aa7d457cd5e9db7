"""`masking`: the checks for masked gradients, which show whether the results of the audit can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from underfire.audit import masking
from underfire.audit.graph import Cell
from underfire.audit.methods import attack_of
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.target import Target

schema = columns("name:s passed:b value:f limit:f detail:s")
about = columns("")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell, for the attack that is checked, at its middle size; none if the spec has `masking: false`.

    It needs the first clean cell only because the key of that cell depends on the model and the data.
    """
    if spec.masking:
        entry = masking.subject(spec)
        eps = sorted(entry.eps)[len(entry.eps) // 2]
        options = {"attack": entry.model_dump(exclude={"label", "eps"}), "eps": eps, "seed": spec.seeds[0]}
        images = min(masking.IMAGES, len(target.data))
        yield Cell("masking", options, {"clean": before[0]}, {"title": "masking checks"}, images=images)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Run the checks on images that are evenly spread over the data."""
    target, result = inputs.target, Result()
    entry, eps, seed = AttackSpec.model_validate(cell.options["attack"]), cell.options["eps"], cell.options["seed"]
    batch = target.data[target.spread(cell.images)].to(inputs.device)
    steps = entry.options.get("steps", entry.card.options["steps"].default)
    budget = masking.Budget(entry.norm or "linf", eps, steps, seed)
    for check in masking.checks(target.model, batch.x, batch.y, attack=attack_of(entry, eps), budget=budget):
        result.add(1, **vars(check))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the checks as the table `checks`."""
    return {"checks": 'SELECT name, passed, value, "limit", detail FROM masking_written'}
