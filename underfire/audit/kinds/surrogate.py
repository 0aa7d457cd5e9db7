"""`surrogate`: the adversarial images of one attack on one shard, crafted on another model than that of the audit.

The model is a further source, or a victim with its defences: then the attack goes *through* the defences, by their BPDA
rules and over several draws of those that are random, or without BPDA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from underfire.audit.graph import Cell
from underfire.audit.kinds import craft
from underfire.audit.kinds.answer import entry_of
from underfire.audit.opening import seed_for
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, VictimSpec
from underfire.audit.target import Target
from underfire.defenses import Defended

schema = craft.schema
about = columns("source:s attack:s label:s norm:s seed:i targeted:b bpda:b")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells of every attack on every further source, and through the defences of every victim.

    Where a defence has no gradient of its own, attacks that need one are planned without BPDA too.
    """
    others = target.others
    for entry in spec.sources:
        if others.weights(entry) != target.weights:
            yield from _on(spec, target, before, ("source", entry.title), None)
    for victim in spec.victims:
        model = others.defended(victim)
        if victim.through and isinstance(model, Defended):
            for bpda in [True] if model.differentiable else [True, False]:
                yield from _on(spec, target, before, ("victim", victim.title), (victim, bpda))


def _on(
    spec: AuditSpec,
    target: Target,
    before: Sequence[Cell],
    model: tuple[str, str],
    through: tuple[VictimSpec, bool] | None,
) -> Iterator[Cell]:
    """Yield the cells of every attack on one model."""
    shards = [c for c in before if c.kind == "answer" and (c.about["role"], c.about["model"]) == model]
    if through is not None and not through[1]:
        spec = spec.model_copy(update={"attacks": [a for a in spec.attacks if a.card.facts.knowledge == "white-box"]})
    role, name = model
    how = {} if through is None else {"bpda": through[1], "samples": through[0].samples}
    for cell in craft.on_shards(spec, target, shards):
        where = f"on {name}" if through is None else f"through {name}" + ("" if through[1] else " without BPDA")
        kept = ("attack", "label", "norm", "seed", "targeted")
        description = {"title": f"{cell.title} {where}", "source": name, **{key: cell.about[key] for key in kept}}
        if through is not None:
            description["bpda"] = through[1]
        options = {**cell.options, **how, "role": role}
        yield Cell("surrogate", options, cell.needs, description, cell.images, cell.kept_bytes)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Attack the images of the shard on the model of the cell, and measure the outcome on it."""
    entry, others = entry_of(cell.needs["clean"].options), inputs.target.others
    model = others.open(entry)
    if cell.options["role"] == "victim":
        entry = entry.model_copy(update={"samples": cell.options["samples"]})
        seed = seed_for("through", cell.options["seed"], inputs.batch(cell).ids[0])
        model = others.through(entry, bpda=cell.options["bpda"], seed=seed)
    return craft.compute(cell, inputs.on(model))


def views(spec: AuditSpec) -> dict[str, str]:
    """Return no table: victims see these images, and the table `transfer` has what they predict."""
    return {}
