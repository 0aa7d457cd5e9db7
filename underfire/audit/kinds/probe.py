"""`probe`: one of the runs that the masking checks compare, on one part of their images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from underfire.audit import masking, probes
from underfire.audit.graph import Cell
from underfire.audit.methods import attack_of
from underfire.audit.named_files import with_files
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import LARGEST_SHARD, AttackSpec, AuditSpec
from underfire.audit.target import Target

schema = None
about = columns("label:s norm:s eps:f")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every run and part, of the checked attack at its middle size above 0; none without `masking`.

    They need the first clean cell only because the key of that cell depends on the model and the data.
    """
    if not spec.masking:
        return
    entry = masking.subject(spec)
    sizes = sorted(eps for eps in entry.eps if eps > 0)
    eps = sizes[len(sizes) // 2]
    options = {"attack": entry.model_dump(exclude={"label", "eps"}), "eps": eps, "seed": spec.seeds[0]}
    options = with_files(options, entry, *filter(None, [entry.interpreter]))
    description = {"title": "masking checks", "label": entry.title, "norm": entry.norm, "eps": eps}
    count = min(masking.IMAGES, len(target.data))
    parts = math.ceil(count / min(spec.masking_shard_size or LARGEST_SHARD, spec.shard_size or LARGEST_SHARD))
    for name in probes.names(budget_of(entry, eps, spec.seeds[0])):
        for part in range(parts):
            own = {**options, "run": name, "part": [part, parts]}
            yield Cell("probe", own, {"clean": before[0]}, description, images=len(range(part, count, parts)))


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Run the attack on a part of images that are evenly spread over the data, and return its answers as an array."""
    target, (part, parts) = inputs.target, cell.options["part"]
    entry, eps, seed = AttackSpec.model_validate(cell.options["attack"]), cell.options["eps"], cell.options["seed"]
    batch = target.data[target.spread(masking.IMAGES)[part::parts]].to(inputs.device)
    hits = probes.probe(
        cell.options["run"],
        target.model,
        batch.x,
        batch.y,
        attack=probes.with_step_size(attack_of(entry, eps), entry.card.options),
        budget=budget_of(entry, eps, seed + part),
    )
    return Result(arrays={"hits": hits})


def views(spec: AuditSpec) -> dict[str, str]:
    """Return no table; the cell `masking` has the results of the runs."""
    return {}


def budget_of(entry: AttackSpec, eps: float, seed: int) -> probes.Budget:
    """Return the budget of the checked attack in the audit."""
    steps = entry.options.get("steps", entry.card.options["steps"].default)
    return probes.Budget(entry.norm or "linf", eps, steps, seed)
