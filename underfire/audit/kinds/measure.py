"""`measure`: the measures of the spec, of one attack on one shard, or of the maps of one interpreter after it.

Measures that do not call the model share a cell. A measure that calls it has a cell of its own, so that adding another
measure to a spec does not repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from underfire.audit.binding import bind, bounded, calls_model, chosen, compares, identity, measured
from underfire.audit.goals import choose_goal
from underfire.audit.graph import Cell
from underfire.audit.kinds.craft import adversarial, inside
from underfire.audit.methods import interpreter_of
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AuditSpec, InterpreterSpec, MeasureSpec
from underfire.audit.target import Target
from underfire.catalog import find
from underfire.validate import per_sample

schema = columns("id:s eps:f measure:s clean:f value:f")
about = columns("craft:s label:s seed:i interpreter:s")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells of every craft cell, and those of every craft cell and interpreter."""
    maps = {
        (cell.about["interpreter"], cell.needs.get("craft", cell.needs["clean"]).key): cell
        for cell in before
        if cell.kind == "explain"
    }
    groups = {table: _groups(spec, table) for table in ("rows", "maps")}
    known = {identity(entry) for entry in chosen(spec)}
    bounds = {entry.title: [m for m in bounded(entry) if identity(m) not in known] for entry in spec.interpreters}
    for craft in before:
        if craft.kind != "craft":
            continue
        clean = craft.needs["clean"]
        for title in ["", *bounds]:
            needs = {"clean": clean, "craft": craft}
            if title:
                needs |= {"map_clean": maps[title, clean.key], "map_adv": maps[title, craft.key]}
            own = bounds.get(title)
            for entries in [*groups["maps" if title else "rows"], *([own] if own else [])]:
                options = {"measures": [entry.model_dump(exclude={"label"}) for entry in entries]}
                names = ", ".join(entry.title for entry in entries)
                description = {"title": f"{names} of {craft.title}", "craft": craft.key, "interpreter": title}
                description |= {"measure": names, **{name: craft.about[name] for name in ("label", "seed")}}
                busy = any(calls_model(find("measure", entry.name)) for entry in entries)
                yield Cell("measure", options, needs, description, images=craft.images if busy else 0)


def _groups(spec: AuditSpec, table: str) -> list[list[MeasureSpec]]:
    """Return the measures of one table, grouped by cell."""
    # one entry for a measure that the spec has under several labels
    different = {identity(entry): entry for entry in chosen(spec)}.values()
    entries = [entry for entry in different if find("measure", entry.name).facts.table == table]
    slow = [[entry] for entry in entries if calls_model(find("measure", entry.name))]
    quick = [entry for entry in entries if [entry] not in slow]
    return [sorted(group, key=identity) for group in (quick, *slow) if group]


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Measure every sample at every size of the attack."""
    entries = [MeasureSpec.model_validate(entry) for entry in cell.options["measures"]]
    craft, batch, result = cell.needs["craft"], inputs.batch(cell), Result()
    x, (x_adv, logits) = batch.x, adversarial(craft, inputs)
    clean = inputs.arrays(cell.needs["clean"])["logits"]
    names = inputs.target.model.labels or ()
    goal = choose_goal(craft.options["attack"]["goal"], clean, batch, craft.options["seed"], names)
    shared: dict[str, Any] = {"model": inputs.target.model, "mask": batch.mask, "y": batch.y, "goal": goal}
    before: dict[str, Any] = {"x": x, "logits": clean}
    if "map_adv" in cell.needs:
        before |= {"m": inputs.arrays(cell.needs["map_clean"])["map"], "y": clean.argmax(1)}
        maps = inputs.arrays(cell.needs["map_adv"])["map"]
        x_adv = inputs.target.model.domain.clip(x_adv)  # the images that were explained
        explained = InterpreterSpec.model_validate(cell.needs["map_adv"].options["interpreter"])
        shared["interpreter"] = interpreter_of(explained)
    for eps in craft.options["sizes"]:
        kept = inside(craft, eps, x, x_adv)
        after = {
            "x": torch.where(per_sample(kept, x), x_adv, x),
            "logits": torch.where(kept[:, None], logits, clean),
        }
        both = {**shared, **before, "x_adv": after["x"], "logits_adv": after["logits"]}
        if "m" in before:
            after |= {"m": torch.where(per_sample(kept, maps), maps, before["m"]), "y": after["logits"].argmax(1)}
            both["n"] = after["m"]
        for entry in entries:
            measure = bind(entry)
            if compares(find("measure", entry.name)):
                values: dict[str, Any] = {"clean": float("nan"), "value": measure(both)}
            else:
                values = {"clean": measure({**shared, **before}), "value": measure({**shared, **after})}
            result.add(len(batch), id=list(batch.ids), eps=eps, measure=identity(entry), **values)
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show one row per sample and measure as the table `measures`, and one column per measure of maps as `maps`.

    In `maps`, a measure that compares two maps has one column `TITLE`; any other has `TITLE_clean` and `TITLE_adv`.
    The table `interpreter_transfer` has one row for every image that an attack fooled and every interpreter, the
    `target`; `source` is the interpreter that the attack was aimed at, and empty for a plain attack. Seeds are
    averaged.
    """
    entries = chosen(spec)
    names = ", ".join(f"({_text(identity(entry))}, {_text(entry.title)})" for entry in measured(spec)) or "('', '')"
    measures = f"""
        SELECT craft AS cell, attack, label, attacked, norm, eps, seed, id, success, interpreter, title AS measure,
               clean, value
        FROM measure_written JOIN measure_cells USING (cell)
        JOIN (VALUES {names}) AS known (measure, title) USING (measure)
        JOIN (SELECT cell AS craft, attack, label, attacked, norm, eps, seed, id, success FROM rows)
        USING (craft, label, seed, eps, id)
        """
    wide = []
    for entry in entries:
        card, title = find("measure", entry.name), entry.title
        if card.facts.table == "maps":
            pair = {"": "value"} if compares(card) else {"_clean": "clean", "_adv": "value"}
            wide += [
                f"any_value({column}) FILTER (measure = {_text(title)}) AS {_column(title + end)}"
                for end, column in pair.items()
            ]
    maps = f"""
        SELECT cell, attack, label, attacked, norm, eps, seed, id, success, interpreter{"".join(f", {c}" for c in wide)}
        FROM measures WHERE interpreter <> '' GROUP BY ALL
        """
    distances = ", ".join(f"avg(value) FILTER (measure = 'map_{name}') AS {name}" for name in ("l1", "l2", "iou"))
    interpreters = f"""
        SELECT label, attacked AS source, interpreter AS target, norm, eps, id, {distances}
        FROM measures JOIN (SELECT cell, label, seed, eps, id FROM rows WHERE pred_clean = y)
        USING (cell, label, seed, eps, id)
        WHERE interpreter <> '' AND success GROUP BY ALL
        """
    return {"measures": measures, "maps": maps, "interpreter_transfer": interpreters}


def _text(value: str) -> str:
    """Return `value` as a text literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def _column(name: str) -> str:
    """Return `name` as a quoted name in SQL."""
    return '"' + name.replace('"', '""').replace("\n", " ") + '"'
