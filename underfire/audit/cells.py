"""What one cell computes; the method is not trusted: all is measured again from the images it returned."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from underfire.audit import masking
from underfire.audit.methods import attack_of
from underfire.audit.plan import Cell
from underfire.audit.spec import AttackSpec
from underfire.audit.target import Target
from underfire.catalog import find
from underfire.errors import InputError
from underfire.measures import localisation, maps, perturbation
from underfire.measures.prediction import confidence, success
from underfire.records import Batch

Columns = dict[str, list[Any]]


@dataclass
class Result:
    """What a cell leaves in the ledger.

    Attributes:
        tables: columns by the name of their table, `rows`, `maps`, `clean` or `checks`.
        gallery: tensors of the first images, on the CPU.
        ids: their names.
    """

    tables: dict[str, Columns] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    gallery: dict[str, Tensor] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def add(self, table: str, count: int, **columns: Any) -> None:
        """Add `count` rows: tensors and lists give one value each, anything else the same value to all."""
        for name, values in columns.items():
            many = values.tolist() if isinstance(values, Tensor) else values
            self.tables[table][name] += many if isinstance(many, list) else [many] * count


def compute(cell: Cell, target: Target) -> Result:
    """The result of one cell."""
    result = Result()
    if cell.kind == "masking":
        assert cell.entry is not None
        batch = target.data[target.spread(cell.images)].to(target.spec.device)
        attack = attack_of(cell.entry, cell.eps)
        steps = cell.entry.options.get("steps", find("attack", cell.entry.name).options["steps"].default)
        budget = masking.Budget(cell.entry.norm or "linf", cell.eps, steps, cell.seed)
        for check in masking.checks(target.model, batch.x, batch.y, attack=attack, budget=budget):
            result.add("checks", 1, **vars(check))
        return result
    for batch in target.data.shard(*cell.shard).batches(target.spec.batch_size):
        if cell.kind == "clean":
            logits = target.logits(batch).cpu()
            pred = logits.argmax(1)
            result.add("clean", len(batch), id=list(batch.ids), y=batch.y, pred=pred, conf=confidence(logits, pred))
        else:
            _attack(cell, target, batch, result)
    return result


def _attack(cell: Cell, target: Target, batch: Batch, result: Result) -> None:
    assert cell.entry is not None
    entry, model, n = cell.entry, target.model, len(batch)
    clean = target.logits(batch)
    batch = batch.to(target.spec.device)
    x, y = batch.x, batch.y
    goal = choose_goal(entry, clean, batch, cell.seed)
    # One start of the random numbers for all sizes, so that sizes are compared on equal terms.
    generator = torch.Generator(x.device).manual_seed(_hash(cell.seed, batch.ids[0]))
    with model.counting() as count:
        start = _now(x)
        x_adv = attack_of(entry, cell.eps)(model, x.clone(), y, goal=goal, generator=generator)
        seconds = _now(x) - start
    if x_adv.shape != x.shape:
        raise InputError(f"the attack returned images {tuple(x_adv.shape)} for {tuple(x.shape)}")
    if not bool(torch.isfinite(x_adv).all()):
        raise InputError("the attack returned pixels that are not finite")
    x_adv = x_adv.detach().to(x.dtype)
    logits = model.predict(x_adv, batch_size=target.spec.batch_size)
    cost = {"forwards": count.forwards / n, "backwards": count.backwards / n, "seconds": seconds / n}
    before = clean.argmax(1)
    old = {title: interpreter(model, x, before).detach() for title, interpreter in target.interpreters.items()}
    aim = entry.interpreter.title if entry.interpreter else ""
    for eps in (cell.eps, *cell.smaller):
        # What was not fooled within eps is, at this eps, an image that was not changed.
        inside = perturbation.within(x, x_adv, str(entry.norm), eps)
        if eps < cell.eps:
            x_adv = torch.where(inside.reshape(-1, 1, 1, 1), x_adv, x)
            logits = torch.where(inside[:, None], logits, clean.to(logits))
            inside = torch.ones_like(inside)
        after, in_box = logits.argmax(1), perturbation.in_box(x_adv)
        about: dict[str, Any] = {
            "cell": cell.key,
            "attack": entry.name,
            "label": entry.title,
            "norm": entry.norm,
            "eps": eps,
            "seed": cell.seed,
            "id": list(batch.ids),
            "success": success(logits, y, goal) & in_box & inside,
        }
        result.add(
            "rows",
            n,
            **about,
            targeted=goal is not None,
            y=y,
            goal=-1 if goal is None else goal,
            pred_clean=before,
            conf_clean=confidence(clean, before),
            pred_adv=after,
            conf_adv=confidence(logits, after),
            **perturbation.sizes(x, x_adv),
            in_box=in_box,
            within_eps=inside,
            **cost,
            params=json.dumps(entry.options),
        )
        shown = {"x": x, "x_adv": x_adv, "y": y, "pred_clean": before, "pred_adv": after}
        for title, interpreter in target.interpreters.items():
            new = interpreter(model, x_adv, after).detach()
            gaps = {name: getattr(maps, f"map_{name}")(old[title], new) for name in ("l1", "l2", "iou")}
            where = {"localisation_clean": _inside(old[title], batch), "localisation_adv": _inside(new, batch)}
            result.add("maps", n, **about, interpreter=title, attacked=aim, **gaps, **where)
            shown |= {f"map_clean.{title}": old[title], f"map_adv.{title}": new}
        if eps == cell.eps:
            _show(result, shown, batch.ids, cell.gallery)


def _inside(m: Tensor, batch: Batch) -> Tensor:
    """The share of the maps inside the known evidence, `[B]`; nan where that is not known."""
    return m.new_full((len(m),), torch.nan) if batch.mask is None else localisation.mass_inside(m, batch.mask)


def _show(result: Result, shown: dict[str, Tensor], ids: tuple[str, ...], wanted: int) -> None:
    """Keep what is still wanted of these images."""
    left = wanted - len(result.ids)
    if left <= 0:
        return
    result.ids += ids[:left]
    for name, value in shown.items():
        part = value[:left].cpu()
        result.gallery[name] = torch.cat([result.gallery[name], part]) if name in result.gallery else part.clone()


def choose_goal(entry: AttackSpec, logits: Tensor, batch: Batch, seed: int) -> Tensor | None:
    """The class each sample is to reach, int64 `[B]`, never its label; None where the attack is untargeted.

    A random one depends on the seed and the name of the image alone, so it does not change with the batch.
    """
    if entry.goal == "untargeted":
        return None
    if entry.goal == "least-likely":
        return logits.scatter(1, batch.y[:, None], torch.inf).argmin(1)
    draws = torch.tensor([_hash(seed, name) % (logits.shape[1] - 1) for name in batch.ids], device=batch.y.device)
    return draws + (draws >= batch.y)


def _hash(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
