"""`craft`: one attack makes adversarial images of one shard and keeps them; what it did is measured from the images.

The attack gets the whole shard at once, and its random numbers depend on the seed and the first image alone. So neither
the batch size, nor another attack, nor an interpreter changes what it returns.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from underfire.audit.arrays import difference, restore
from underfire.audit.goals import choose_goal
from underfire.audit.graph import Cell
from underfire.audit.methods import attack_of
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.target import Target
from underfire.catalog import find
from underfire.errors import InputError
from underfire.measures.outcome import attack_outcome
from underfire.measures.perturbation import within
from underfire.validate import per_sample

_OUTCOME = "pred_adv:i conf_adv:f success:b in_box:b within_eps:b linf:f l2:f l1:f l0:f "
schema = columns("id:s eps:f goal:i " + _OUTCOME + "forwards:f backwards:f seconds:f")
about = columns("clean:s attack:s label:s norm:s seed:i targeted:b attacked:s params:s")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every attack, size, seed and shard.

    An attack of minimum size runs once, at its largest size, and the smaller ones are read off its result. An attack
    that draws nothing at random runs for the first seed only.
    """
    clean = [cell for cell in before if cell.kind == "clean"]
    for entry in spec.attacks:
        card = find("attack", entry.name)
        random = card.facts.random or entry.goal == "random-target"
        descending = sorted(entry.eps, reverse=True)
        for sizes in [descending] if card.facts.minimal else [[eps] for eps in entry.eps]:
            for seed in spec.seeds if random else spec.seeds[:1]:
                for shard in clean:
                    yield _cell(entry, sizes, seed, random, shard, target)


def _cell(entry: AttackSpec, sizes: list[float], seed: int, random: bool, clean: Cell, target: Target) -> Cell:
    aim = entry.interpreter
    options = {
        "attack": entry.model_dump(exclude={"label", "eps", "interpreter"}),
        "interpreter": aim and aim.model_dump(exclude={"label"}),
        "sizes": sizes,
        "seed": seed if random else 0,
    }
    told = {
        "title": f"{entry.title} at eps {', '.join(f'{eps:.4g}' for eps in sizes)}",
        "clean": clean.key,
        "attack": entry.name,
        "label": entry.title,
        "norm": entry.norm,
        "seed": seed,
        "targeted": entry.goal != "untargeted",
        "attacked": aim.title if aim else "",
        "params": json.dumps(entry.options),
    }
    size = clean.images * target.preview.first.x[0].numel() * 4
    return Cell("craft", options, {"clean": clean}, told, images=clean.images, kept_bytes=size)


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Attack the images of the shard, and measure what became of them at every size."""
    spec, model = inputs.target.spec, inputs.target.model
    entry = AttackSpec.model_validate({**cell.options["attack"], "interpreter": cell.options["interpreter"]})
    batch, clean = inputs.batch(cell), inputs.arrays(cell.needs["clean"])["logits"]
    x, y, n = batch.x, batch.y, len(batch)
    goal = choose_goal(entry.goal, clean, batch, cell.options["seed"])
    sizes: list[float] = cell.options["sizes"]
    # All sizes begin with the same random numbers, so that they are compared on equal terms.
    digest = hashlib.sha256(repr((cell.options["seed"], batch.ids[0])).encode()).hexdigest()
    generator = torch.Generator(x.device).manual_seed(int(digest[:12], 16))
    with model.counting() as count:
        start = _now(x)
        x_adv = attack_of(entry, sizes[0])(model, x.clone(), y, goal=goal, generator=generator)
        seconds = _now(x) - start
    x_adv = _checked(x_adv, x)
    logits = model.predict(x_adv, batch_size=spec.batch_size)
    result = Result(arrays={"x_adv": difference(x_adv, x), "logits": logits})
    cost = {"forwards": count.forwards / n, "backwards": count.backwards / n, "seconds": seconds / n}
    for eps in sizes:
        kept = inside(cell, eps, x, x_adv)
        outcome = attack_outcome(
            model.predict,
            x,
            torch.where(_rows(kept, x), x_adv, x),
            y,
            goal,
            norm=str(entry.norm),
            eps=eps,
            logits=torch.where(kept[:, None], logits, clean),
        )
        result.add(n, id=list(batch.ids), eps=eps, goal=-1 if goal is None else goal, **outcome, **cost)
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the outcomes as the table `rows`, beside what the model says about the clean images."""
    outcome = ", ".join(name for name in schema.names if name not in ("id", "eps", "goal", "pred_adv", "conf_adv"))
    return {
        "rows": f"""
        SELECT cell, attack, label, attacked, norm, eps, seed, id, targeted, y, goal, pred AS pred_clean,
               conf AS conf_clean, pred_adv, conf_adv, {outcome}, params
        FROM craft_written JOIN craft_cells USING (cell)
        JOIN (SELECT cell AS clean, id, y, pred, conf FROM clean_written) USING (clean, id)
        """
    }


# --- for the cells that need a craft ---------------------------------------------------------------------------------


def adversarial(cell: Cell, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the images that a craft kept, and the model's answers to them."""
    arrays = inputs.arrays(cell)
    return restore(arrays["x_adv"], inputs.batch(cell).x), arrays["logits"]


def inside(cell: Cell, eps: float, x: Tensor, x_adv: Tensor) -> Tensor:
    """Return which images keep their change at a size, bool `[B]`.

    At the size that the attack was given all do. At a smaller one, an image whose change is larger was not fooled
    within that size, and counts as an image that was not changed.
    """
    if eps == cell.options["sizes"][0]:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return within(x, x_adv, cell.options["attack"]["norm"], eps)


def _checked(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return what an attack returned, in the dtype of the images; raise InputError if it is no batch of images."""
    if x_adv.shape != x.shape:
        raise InputError(f"the attack returned images {tuple(x_adv.shape)} for {tuple(x.shape)}")
    if not bool(torch.isfinite(x_adv).all()):
        raise InputError("the attack returned pixels that are not finite")
    return x_adv.detach().to(x.dtype)


def _rows(chosen: Tensor, like: Tensor) -> Tensor:
    return per_sample(chosen, like)


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
