"""`evade`: one attack on one shard by an attacker who knows one detector, and how the detector scores the result.

The attack runs on a guard: the classifier with the detector in front of it, which refuses what the detector flags. Its
goal is that of the attack in the spec, and for an untargeted attack the likeliest wrong class, since a refusal is no
success. The threshold of the guard depends on the false-positive rate, so another rate runs these cells again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from underfire.ascent.rows import likeliest_others
from underfire.audit.goals import choose_goal, other_than_label
from underfire.audit.graph import Cell
from underfire.audit.kinds import craft
from underfire.audit.kinds.fit import fitted, scores
from underfire.audit.methods import detector_of
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec, DetectorSpec
from underfire.audit.target import Target
from underfire.detectors import Calibration, Detector, Guard
from underfire.errors import InputError, Unsupported
from underfire.measures.detection import threshold
from underfire.measures.outcome import attack_outcome
from underfire.validate import per_sample

schema = columns("id:s eps:f goal:i success:b score:f")
about = columns("detector:s clean:s attack:s label:s norm:s seed:i targeted:b")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every detector, and every attack, size, seed and shard with which an attacker can know it."""
    shards = [cell for cell in before if cell.kind == "clean"]
    fits = {cell.about["detector"]: cell for cell in before if cell.kind == "fit" and not cell.about["left_out"]}
    for entry in spec.detectors:
        known = spec.model_copy(update={"attacks": attacks_on(entry, spec)})
        for cell in craft.on_shards(known, target, shards):
            options = {**cell.options, "false_positive_rate": spec.false_positive_rate}
            description = {name: cell.about[name] for name in about.names if name != "detector"}
            description |= {"title": f"{cell.title}, knowing {entry.title}", "detector": entry.title}
            yield Cell("evade", options, {**cell.needs, "fit": fits[entry.title]}, description, images=cell.images)


def attacks_on(entry: DetectorSpec, spec: AuditSpec) -> list[AttackSpec]:
    """Return the attacks of a spec that can be run by an attacker who knows a detector; none without `aware`."""
    detector = detector_of(entry) if entry.aware else None
    return [attack for attack in spec.attacks if can_know(attack, detector)]


def can_know(attack: AttackSpec, detector: Any) -> bool:
    """Return whether an attack can be run on a guard of a detector.

    It must have a goal and not be aimed at an explanation, of which a guard has none; and it must need no gradient if
    the score has none.
    """
    if not isinstance(detector, Detector):
        return False
    facts, options = attack.card.facts, attack.card.options
    aimed = "interpreter" in options or "interpreters" in options or facts.quadrant != "prediction changed"
    climbs = detector.differentiable or facts.knowledge == "black-box"
    return "targeted" in facts.goals and not facts.models and not aimed and climbs


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Attack the guard with the images of the shard; return, at every size, what fools the classifier, and the scores.

    An image that does not count as changed at a size has its clean score.
    """
    batch, model = inputs.batch(cell), inputs.target.model
    entry = AttackSpec.model_validate({**cell.options["attack"], "interpreter": None})
    x, y, seed, sizes = batch.x, batch.y, cell.options["seed"], cell.options["sizes"]
    guard = _guard(cell, inputs)
    clean = inputs.arrays(cell.needs["clean"])["logits"]
    goal = choose_goal(entry.goal, clean, batch, seed, model.labels or ())
    wanted = likeliest_others(clean, y, 1)[:, 0] if goal is None else other_than_label(goal, y, clean.shape[1])
    try:
        x_adv = model.domain.clip(craft.attacked(entry, sizes[0], guard, batch, wanted, seed))
    except InputError as error:  # such as a layer that the attack names, and that a guard has by another name
        raise Unsupported(str(error)) from None
    logits, found = model.predict(x_adv, chunk=inputs.target.spec.batch_size), scores(guard.detector, x_adv, inputs)
    usual, result = scores(guard.detector, x, inputs), Result()
    for eps in sizes:
        kept = craft.inside(cell, eps, x, x_adv)
        shown = torch.where(per_sample(kept, x), x_adv, x), torch.where(kept[:, None], logits, clean)
        outcome = attack_outcome(
            model.predict, x, shown[0], y, goal, norm=str(entry.norm), eps=eps, logits=shown[1], domain=model.domain
        )
        score = torch.where(kept, found, usual)
        result.add(
            len(batch),
            id=list(batch.ids),
            eps=eps,
            goal=-1 if goal is None else goal,
            success=outcome["success"],
            score=score,
        )
    return result


def _guard(cell: Cell, inputs: Inputs) -> Guard:
    """Return the classifier with the detector in front of it, whose threshold has the false-positive rate."""
    held = inputs.arrays(cell.needs["fit"])["score"].cpu()
    at = threshold(held, cell.options["false_positive_rate"])
    known = Calibration(tuple(held.double().tolist()), frozenset())
    return Guard(inputs.target.model, fitted(cell.needs["fit"], inputs), at, calibration=known)


def views(spec: AuditSpec) -> Mapping[str, str]:
    """Show the scores as the table `aware_scores`, with the columns of `scores`."""
    return {
        "aware_scores": """
        SELECT detector, '' AS left_out, cell, attack, label, '' AS attacked, norm, eps, seed, id,
               pred = y AS was_right, success, score
        FROM evade_written JOIN evade_cells USING (cell)
        JOIN (SELECT cell AS clean, id, y, pred FROM clean_written) USING (clean, id)
        WHERE NOT (targeted AND goal = y)
        """
    }
