"""`transfer`: what one victim, defended or not, predicts for the adversarial images of one attack on one shard.

A random victim is evaluated several times, after the attack and on fresh draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from underfire.audit.goals import choose_goal
from underfire.audit.graph import Cell
from underfire.audit.kinds.answer import draws_of, outputs
from underfire.audit.kinds.craft import adversarial, inside
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, SourceSpec, VictimSpec
from underfire.audit.target import Target
from underfire.defenses import Defended
from underfire.measures.outcome import attack_outcome

schema = columns("id:s eps:f fooled:f pred:i")
about = columns("craft:s source:s attack:s label:s norm:s seed:i targeted:b victim:s way:s draws:i")

WAYS = ("transfer", "white-box", "around", "through", "through without BPDA")
"""The ways of an attack to a victim: from another model, from the same model, from the same model without its defences,
through its defences, and through its defences without BPDA."""


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every victim and every craft: those of all sources, and those through its own defences."""
    own = [cell for cell in before if cell.kind == "craft"]
    others = target.others
    for victim in spec.victims:
        shown = []
        for source in spec.sources:
            same = others.weights(source) == target.weights
            made = own if same else [c for c in before if c.kind == "surrogate" and _is(c, "source", source)]
            shown += [(cell, source.title, way_of(source, victim, target)) for cell in made]
        for cell in before:
            if cell.kind == "surrogate" and _is(cell, "victim", victim):
                shown.append((cell, victim.title, "through" if cell.options["bpda"] else "through without BPDA"))
        draws = draws_of(victim, spec, target)
        options = {"model": others.identity(victim), "draws": draws}
        for cell, source_title, way in shown:
            description: dict[str, Any] = {
                "title": f"{victim.title} on {cell.title}",
                "craft": cell.key,
                "source": source_title,
            }
            description |= {key: cell.about[key] for key in ("attack", "label", "norm", "seed", "targeted")}
            description |= {"victim": victim.title, "way": way, "draws": draws}
            needs = {"clean": cell.needs["clean"], "craft": cell}
            yield Cell("transfer", options, needs, description, images=cell.images * draws)


def _is(cell: Cell, role: str, entry: SourceSpec) -> bool:
    return cell.options["role"] == role and cell.about["source"] == entry.title


def way_of(source: SourceSpec, victim: VictimSpec, target: Target) -> str:
    """Return how the attacks on a source reach a victim: one of `WAYS`.

    A victim that scales its images first, with the weights of the source, counts as white-box too: the attacker knows
    all of it but the scaling, so that its rate says nothing about transfer to another network.
    """
    others = target.others
    if not others.inner_weights(source) & others.inner_weights(victim):
        return "transfer"
    return "around" if isinstance(others.defended(victim), Defended) else "white-box"


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Return for every image and size the share of the draws on which the victim is fooled."""
    craft, batch, result = cell.needs["craft"], inputs.batch(cell), Result()
    x, x_adv = batch.x, inputs.target.model.domain.clip(adversarial(craft, inputs)[0])
    attack, sizes = craft.options["attack"], craft.options["sizes"]
    # the goal of the attack is that of the source, whose clean logits it may depend on
    clean = inputs.arrays(craft.needs["clean"])["logits"]
    goal = choose_goal(attack["goal"], clean, batch, craft.options["seed"], inputs.target.labels or ())
    draws = list(outputs(cell.options, x_adv, batch, inputs, "attacked"))
    for eps in sizes:
        kept, fooled, pred = inside(craft, eps, x, x_adv), [], []
        for logits in draws:
            outcome = attack_outcome(
                inputs.target.model,
                x,
                x_adv,
                batch.y,
                goal,
                norm=attack["norm"],
                eps=eps,
                logits=logits,
                domain=inputs.target.model.domain,
            )
            fooled.append(outcome["success"] & kept)
            pred.append(outcome["pred_adv"])
        share = torch.stack(fooled).double().mean(0)
        result.add(len(batch), id=list(batch.ids), eps=eps, fooled=share, pred=torch.stack(pred).mode(0).values)
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show what each victim predicts for each adversarial image as the table `transfer`.

    `fooled` is the share of the draws on which it is fooled, `counted` says whether the image is one that all models
    classify correctly, and `refused` is why the attack or the victim could not be run; such a row has no image.
    """
    named = "cell, source, victim, way, attack, label, norm, seed, targeted, draws"
    return {
        "transfer": f"""
        SELECT {named}, eps, id, fooled, pred, counted, NULL AS refused
        FROM transfer_written JOIN transfer_cells USING (cell) JOIN (SELECT id, counted FROM sample) USING (id)
        UNION ALL
        SELECT {named}, NULL, NULL, NULL, NULL, NULL, reason FROM refused JOIN transfer_cells USING (cell)
        """
    }
