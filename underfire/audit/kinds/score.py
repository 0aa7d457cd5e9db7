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
about = columns("detector:s clean:s craft:s label:s seed:i")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every detector and shard, and then a cell for every detector and craft cell."""
    for fit in (cell for cell in before if cell.kind == "fit"):
        detector, clean = fit.about["detector"], dict[str, Cell]()
        options = {"detector": fit.options["detector"]}
        for shard in (cell for cell in before if cell.kind == "clean"):
            needs = {"clean": shard, "fit": fit}
            description = {"title": f"{detector} of clean images", "detector": detector, "clean": shard.key}
            clean[shard.key] = Cell("score", options, needs, description, images=shard.images)
            yield clean[shard.key]
        for craft in (cell for cell in before if cell.kind == "craft"):
            shard = craft.needs["clean"]
            needs = {"clean": shard, "fit": fit, "craft": craft, "score": clean[shard.key]}
            description = {"title": f"{detector} of {craft.title}", "detector": detector, "clean": shard.key}
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

    In `clean_scores`, `held_out` says whether the threshold is chosen from the score.
    """
    return {
        "scores": """
        SELECT detector, craft AS cell, attack, label, attacked, norm, eps, seed, id, was_right, success, score
        FROM score_written JOIN score_cells USING (cell)
        JOIN (
            SELECT cell AS craft, attack, label, attacked, norm, eps, seed, id, pred_clean = y AS was_right, success
            FROM rows
        ) USING (craft, label, seed, eps, id)
        """,
        "clean_scores": """
        SELECT detector, FALSE AS held_out, id, pred = y AS was_right, score
        FROM score_written JOIN score_cells USING (cell)
        JOIN (SELECT cell AS clean, id, y, pred FROM clean_written) USING (clean, id)
        WHERE craft IS NULL
        UNION ALL
        SELECT detector, TRUE AS held_out, id, NULL AS was_right, score
        FROM fit_written JOIN fit_cells USING (cell)
        """,
    }
