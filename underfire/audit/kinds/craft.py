"""`craft`: the adversarial images of one attack on one shard, and the outcome as measured on these images.

The attack gets the whole shard at once, and its random numbers depend only on the seed and the first image. So its
result does not change with the batch size, nor with the other attacks and interpreters of the spec.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from underfire.audit.aims import joined
from underfire.audit.arrays import difference, restore
from underfire.audit.goals import choose_goal, other_than_label
from underfire.audit.graph import Cell
from underfire.audit.methods import attack_of
from underfire.audit.named_files import with_files
from underfire.audit.opening import seed_for
from underfire.audit.result import Inputs, Result, columns
from underfire.audit.schema import AttackSpec, AuditSpec
from underfire.audit.sizes import size
from underfire.audit.target import Target
from underfire.audit.values import as_text
from underfire.errors import InputError
from underfire.measures.outcome import attack_outcome
from underfire.measures.perturbation import within
from underfire.model import Classifier
from underfire.records import Batch
from underfire.validate import per_sample

_OUTCOME = "pred_adv:i conf_adv:f success:b in_box:b within_eps:b linf:f l2:f l1:f l0:f "
schema = columns("id:s eps:f goal:i " + _OUTCOME + "forwards:f backwards:f seconds:f")
about = columns("clean:s attack:s label:s norm:s seed:i targeted:b attacked:s params:s")


def cells(spec: AuditSpec, target: Target, before: Sequence[Cell]) -> Iterator[Cell]:
    """Yield a cell for every attack, size, seed and shard.

    An attack of minimum size runs once, at its largest size; its outcomes at the smaller sizes follow from the result.
    A deterministic attack runs for the first seed only. If the model of the audit is none of the sources of a transfer
    audit that asks nothing else about it, there are no cells.
    """
    others_only = spec.sources and all(target.others.weights(source) != target.weights for source in spec.sources)
    if others_only and not (spec.interpreters or spec.detectors or spec.masking):
        return
    yield from on_shards(spec, target, [cell for cell in before if cell.kind == "clean"])


def on_shards(spec: AuditSpec, target: Target, clean: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells of every attack on the shards of `clean` cells."""
    for entry, options, seed in runs(spec):
        for shard in clean:
            yield _cell(entry, options, seed, shard, target)


def runs(spec: AuditSpec) -> Iterator[tuple[AttackSpec, dict[str, Any], int]]:
    """Yield every attack with the options of its cells and its seed, once for each of its sizes and seeds."""
    for entry in spec.attacks:
        card = entry.card
        random = card.facts.random or entry.goal == "random-target"
        descending, aim = sorted(entry.eps, reverse=True), entry.interpreter
        options = {
            "attack": entry.model_dump(exclude={"label", "eps", "interpreter"}),
            "interpreter": aim and aim.model_dump(exclude={"label"}),
        }
        options = with_files(options, entry, *filter(None, [aim]))
        for sizes in [descending] if card.facts.minimal else [[eps] for eps in entry.eps]:
            for seed in spec.seeds if random else spec.seeds[:1]:
                yield entry, {**options, "sizes": sizes, "seed": seed if random else 0}, seed


def _cell(entry: AttackSpec, options: dict[str, Any], seed: int, clean: Cell, target: Target) -> Cell:
    """Return the cell of one attack, with its options, for one seed and one shard."""
    sizes, aim = options["sizes"], entry.interpreter
    description = {
        "title": f"{entry.title} at eps {', '.join(size(str(entry.norm), eps) for eps in sizes)}",
        "clean": clean.key,
        "attack": entry.name,
        "label": entry.title,
        "norm": entry.norm,
        "seed": seed,
        "targeted": entry.goal != "untargeted",
        "attacked": joined([aim.title] if aim else _several(entry, target.spec)),
        "params": json.dumps(entry.options, default=as_text),
    }
    kept = clean.images * target.preview.first.x[0].numel() * 4
    return Cell("craft", options, {"clean": clean}, description, images=clean.images, kept_bytes=kept)


def _several(entry: AttackSpec, spec: AuditSpec) -> list[str]:
    """Return the interpreters of an attack that is aimed at several maps, by their labels; empty for any other."""
    option = entry.card.options.get("interpreters")
    given = entry.options.get("interpreters", option.default) if option else ()
    return [_label(one, spec) for one in given]


def _label(given: Any, spec: AuditSpec) -> str:
    """Return the label of the interpreter that an entry of a list names."""
    if not isinstance(given, (str, Mapping)):
        return "a function"
    options = {} if isinstance(given, str) else dict(given)
    name = options.pop("name", given)
    return next((one.title for one in spec.interpreters if (one.name, one.options) == (name, options)), str(name))


def compute(cell: Cell, inputs: Inputs) -> Result:
    """Attack the images of the shard, and measure the outcome at every size."""
    spec, model = inputs.target.spec, inputs.target.model
    entry = AttackSpec.model_validate({**cell.options["attack"], "interpreter": cell.options["interpreter"]})
    batch, clean = inputs.batch(cell), inputs.arrays(cell.needs["clean"])["logits"]
    x, y, n = batch.x, batch.y, len(batch)
    goal = choose_goal(entry.goal, clean, batch, cell.options["seed"], model.labels or ())
    sizes: list[float] = cell.options["sizes"]
    with model.counting() as count:
        start = _now(x)
        x_adv = attacked(entry, sizes[0], model, batch, other_than_label(goal, y, clean.shape[1]), cell.options["seed"])
        seconds = _now(x) - start
    # an image with logits that are not finite is not a success: replace it by the clean image
    logits = model.predict(x_adv, chunk=spec.batch_size, finite=False)
    finite = logits.isfinite().all(1)
    x_adv, logits = torch.where(_rows(finite, x), x_adv, x), torch.where(finite[:, None], logits, clean)
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
            domain=model.domain,
        )
        result.add(n, id=list(batch.ids), eps=eps, goal=-1 if goal is None else goal, **outcome, **cost)
    return result


def views(spec: AuditSpec) -> dict[str, str]:
    """Show the outcomes, with the predictions of the clean images, as the table `rows`.

    An image whose label is the class that an attack wants is left out: it has nothing to reach.
    """
    outcome = ", ".join(name for name in schema.names if name not in ("id", "eps", "goal", "pred_adv", "conf_adv"))
    return {
        "rows": f"""
        SELECT cell, attack, label, attacked, norm, eps, seed, id, targeted, y, goal, pred AS pred_clean,
               conf AS conf_clean, pred_adv, conf_adv, {outcome}, params
        FROM craft_written JOIN craft_cells USING (cell)
        JOIN (SELECT cell AS clean, id, y, pred, conf FROM clean_written) USING (clean, id)
        WHERE NOT (targeted AND goal = y)
        """
    }


# --- functions for the cells that need a craft cell ------------------------------------------------------------------


def attacked(entry: AttackSpec, eps: float, model: Classifier, batch: Batch, goal: Tensor | None, seed: int) -> Tensor:
    """Return the images of a shard after an attack of one size on a model.

    All sizes get the same random numbers, so that their comparison is fair.

    Raises:
        InputError: the attack returned images of another shape, or pixels that are not finite.
    """
    generator = torch.Generator(batch.x.device).manual_seed(seed_for(seed, batch.ids[0]))
    return _checked(attack_of(entry, eps)(model, batch.x.clone(), batch.y, goal=goal, generator=generator), batch.x)


def adversarial(cell: Cell, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the adversarial images of a craft cell, and their logits."""
    arrays = inputs.arrays(cell)
    return restore(arrays["x_adv"], inputs.batch(cell).x), arrays["logits"]


def inside(cell: Cell, eps: float, x: Tensor, x_adv: Tensor) -> Tensor:
    """Return which images count as changed at size `eps`, bool `[B]`.

    At the size at which the attack ran, all images do. At a smaller size, an image whose perturbation is larger than
    `eps` counts as unchanged, because the attack has not fooled it within that size.
    """
    if eps == cell.options["sizes"][0]:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    return within(x, x_adv, cell.options["attack"]["norm"], eps)


def _checked(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return `x_adv` in the dtype of `x`; raise InputError if it has another shape or pixels that are not finite."""
    if x_adv.shape != x.shape:
        raise InputError(f"the attack returned images {tuple(x_adv.shape)} for {tuple(x.shape)}")
    if not bool(torch.isfinite(x_adv).all()):
        raise InputError("the attack returned pixels that are not finite")
    return x_adv.detach().to(x.dtype)


def _rows(chosen: Tensor, like: Tensor) -> Tensor:
    return per_sample(chosen, like)


def _now(x: Tensor) -> float:
    """Return the time in seconds, after pending work on the GPU of `x` is done."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
