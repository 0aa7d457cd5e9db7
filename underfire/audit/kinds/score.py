"""`score`: the scores that a fitted detector gives to the images of one shard, either clean or after one attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from underfire.audit.graph import Cell
from underfire.audit.kinds.craft import adversarial, inside
from underfire.audit.kinds.fit import fitted, scores
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec
from underfire.audit.target import Target

schema = columns("id:s eps:f score:f")
about = columns("detector:s left_out:s clean:s craft:s label:s seed:i")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every detector and shard, and then a cell for every detector and craft cell.

    A detector that has not learned from one attack scores the images of that attack alone.
    """
    for fit in (cell for cell in before if cell.kind == "fit"):
        of, clean = {name: fit.about[name] for name in ("detector", "left_out")}, dict[str, Cell]()
        title = of["detector"] + (f" without {of['left_out']}" if of["left_out"] else "")
        options = {"detector": fit.options["detector"]}
        for shard in (cell for cell in before if cell.kind == "clean"):
            needs = {"clean": shard, "fit": fit}
            description = {"title": f"{title} of clean images", **of, "clean": shard.key}
            clean[shard.key] = Cell("score", options, needs, description, images=shard.images)
            yield clean[shard.key]
        for craft in (cell for cell in before if cell.kind == "craft"):
            if of["left_out"] not in ("", craft.about["label"]):
                continue
            shard = craft.needs["clean"]
            needs = {"clean": shard, "fit": fit, "craft": craft, "score": clean[shard.key]}
            description = {"title": f"{title} of {craft.title}", **of, "clean": shard.key}
            description |= {"craft": craft.key, "label": craft.about["label"], "seed": craft.about["seed"]}
            yield Cell("score", options, needs, description, images=craft.images)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Score the images at every size of the attack; an image that does not count as changed has its clean score."""
    batch, detector, result = inputs.batch(cell), fitted(cell.needs["fit"], inputs), Result()
    if "craft" not in cell.needs:
        found = scores(detector, batch.x, inputs)
        result.arrays["score"] = found
        result.add(len(batch), id=list(batch.ids), eps=0.0, score=found)
        return result
    craft = cell.needs["craft"]
    x_adv = inputs.target.model.domain.clip(adversarial(craft, inputs)[0])
    found, clean = scores(detector, x_adv, inputs), inputs.arrays(cell.needs["score"])["score"]
    for eps in craft.options["sizes"]:
        kept = inside(craft, eps, batch.x, x_adv)
        result.add(len(batch), id=list(batch.ids), eps=eps, score=torch.where(kept, found, clean))
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the scores of attacked images as the table `scores`, and those of clean ones as `clean_scores`.

    In `clean_scores`, `held_out` says whether the threshold is chosen from the score. `left_out` is the attack that a
    supervised detector has not learned from; it is empty for the detector that has learned from all of them.
    """
    return {
        "scores": """
        SELECT detector, coalesce(left_out, '') AS left_out, craft AS cell, attack, label, attacked, norm, eps, seed,
               id, was_right, success, score
        FROM score_written JOIN score_cells USING (cell)
        JOIN (
            SELECT cell AS craft, attack, label, attacked, norm, eps, seed, id, pred_clean = y AS was_right, success
            FROM rows
        ) USING (craft, label, seed, eps, id)
        """,
        "clean_scores": """
        SELECT detector, coalesce(left_out, '') AS left_out, FALSE AS held_out, id, pred = y AS was_right, score
        FROM score_written JOIN score_cells USING (cell)
        JOIN (SELECT cell AS clean, id, y, pred FROM clean_written) USING (clean, id)
        WHERE craft IS NULL
        UNION ALL
        SELECT detector, coalesce(left_out, ''), TRUE AS held_out, id, NULL AS was_right, score
        FROM fit_written JOIN fit_cells USING (cell)
        """,
    }
