"""`masking`: the checks for masked gradients, which show whether the results of the audit can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from underfire.audit import masking, probes
from underfire.audit.graph import Cell
from underfire.audit.kinds.probe import budget_of
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.target import Target

schema = columns("name:s passed:b value:f limit:f detail:s rival:s hits:i images:i")
about = columns("label:s norm:s eps:f")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield one cell, which compares the runs of all `probe` cells; none if there are none."""
    runs = [cell for cell in before if cell.kind == "probe"]
    if runs:
        needs = {f"{cell.options['run']} {cell.options['part'][0]}": cell for cell in runs}
        yield Cell("masking", {"columns": schema.names}, needs, runs[0].about)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return the results of the checks as rows."""
    runs, result = list(cell.needs.values()), Result()
    shared = runs[0].options
    entry, eps = AttackSpec.model_validate(shared["attack"]), shared["eps"]
    budget = budget_of(entry, eps, shared["seed"])
    answers = {
        name: torch.cat([inputs.arrays(run)["hits"] for run in runs if run.options["run"] == name])
        for name in probes.names(budget)
    }
    x = inputs.target.preview.first.x[:1].to(inputs.device)
    for check in masking.judge(answers, budget, probes.diameter(inputs.target.model, x, budget.norm, eps)):
        result.add(1, **vars(check))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the checks as the table `checks`."""
    outcome = ", ".join(f'"{name}"' for name in schema.names)
    return {"checks": f"SELECT {outcome}, label, norm, eps FROM masking_written JOIN masking_cells USING (cell)"}
