"""`underfire attack`: attack images and write pictures and a table; `Job` is shared with `underfire explain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from underfire.catalog import find
from underfire.cli import options
from underfire.cli.images import ImageInput, open_images
from underfire.cli.progress import progress
from underfire.cli.shared import ERR, OUT, atomic_write_all, open_model, print_json, to_json

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.audit.spec import AttackSpec
    from underfire.model import Classifier
    from underfire.records import Batch

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """The options that `attack` and `explain` share; the model and the images are opened at their first use."""

    pictures: str
    model_uri: str
    n: int | None
    size: int | None
    batch_size: int
    out: Path
    force: bool
    seed: int
    device: str | None
    quiet: bool
    as_json: bool
    output: str | None = None
    defenses: tuple[str, ...] = ()

    @cached_property
    def model(self) -> Classifier:
        """The model behind its defences, on the device."""
        model = open_model(self.model_uri, self.output, self.device)
        return options.defended(model, self.defenses) if self.defenses else model

    @cached_property
    def differentiated(self) -> Classifier:
        """The model in the form that gradient methods take: through its defences."""
        from underfire.defenses import through

        return through(self.model) if self.defenses else self.model

    def check_domain(self, kind: str, name: str) -> None:
        """Raise Unsupported if the model does not take images, or the method does not support the model's domain."""
        from underfire.domains import domain_of

        domain = domain_of(self.model)
        domain.require_images(f"{kind} {name} on the command line")
        find(kind, name).check_domain(domain.name)

    @cached_property
    def source(self) -> ImageInput:
        """The images."""
        return open_images(
            self.pictures, n=self.n, size=self.size, batch_size=self.batch_size, seed=self.seed, model=self.model
        )

    def batches(self, what: str, passes: int) -> Iterator[tuple[Batch, Tensor, tuple[str, ...]]]:
        """Yield every batch on the device with its logits and file names, under a progress bar.

        The label of an image without one is the predicted class.

        Args:
            what: the name of the bar.
            passes: the approximate number of forward passes per image, with which the bar also moves within a batch.
        """
        from underfire.domains import check_inputs
        from underfire.hooks import unwrap
        from underfire.validate import check_classes

        done, seen, size = 0, 0, 1

        def passed(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
            nonlocal seen
            seen += len(inputs[0])
            show(done + min(seen / (passes * size), 0.99) * size)

        place = next(iter(self.model.buffers())).device
        with progress(what, len(self.source.stems), unit="images", quiet=self.quiet) as show:
            handle = unwrap(self.model).register_forward_hook(passed)
            try:
                for batch in self.source.batches:
                    batch = batch.to(str(place))
                    seen, size = 0, len(batch)
                    logits = self.model.predict(batch.x)
                    if not self.source.labelled:
                        batch = type(batch)(batch.x, logits.argmax(1), batch.ids)
                    check_inputs(self.model, batch.x, batch.y)
                    check_classes(logits, batch.y)
                    yield batch, logits, self.source.stems[done : done + len(batch)]
                    done += len(batch)
                    show(done)
            finally:
                handle.remove()

    def about(self, batch: Batch, logits: Tensor) -> list[Row]:
        """Return the name, the label and the prediction of every image, as rows."""
        from underfire.measures.prediction import confidence

        pred = logits.argmax(1)
        label = batch.y.tolist() if self.source.labelled else [None] * len(batch)
        return [
            {"id": name, "label": y, "pred": k, "class": self.model.name_of(k), "conf": c}
            for name, y, k, c in zip(batch.ids, label, pred.tolist(), confidence(logits, pred).tolist(), strict=True)
        ]

    def show(self, rows: list[Row], columns: dict[str, str]) -> None:
        """Print the results as a table, or as JSON."""
        from underfire.audit.sizes import size

        if self.as_json:
            print_json(rows)
        if self.as_json or self.quiet:
            return
        table = Table(box=None, header_style="dim", pad_edge=False)
        shown = {name: title for name, title in columns.items() if rows[0].get(name) is not None}
        for title in shown.values():
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*(size(name, row[name]) if name == "linf" else _cell(row[name]) for name in shown))
        OUT.print(table)
        ERR.print(f"pictures and results.json are in {self.out}")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "\n".join(map(_cell, value))
    if isinstance(value, dict):
        return " ".join(map(_cell, value.values()))
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def rows_of(columns: dict[str, Tensor]) -> Iterator[Row]:
    """Turn columns with one value for each image into rows."""
    values = {name: column.tolist() for name, column in columns.items()}
    return ({name: column[i] for name, column in values.items()} for i in range(len(next(iter(values.values())))))


# --- attack ----------------------------------------------------------------------------------------------------------


def attack(job: Job, entry: AttackSpec, interpreter: str | None) -> None:
    """Attack the images of `job`, write the pictures, and print the measurements.

    Args:
        job: the options shared with `explain`.
        entry: the attack at one size.
        interpreter: an interpreter whose maps of the clean and adversarial images are written, too; None for none.
    """
    import torch

    from underfire.ascent.threats import BALLS
    from underfire.audit.goals import choose_goal
    from underfire.audit.methods import attack_of, interpreter_of
    from underfire.audit.sizes import norm as name_of_norm

    job.check_domain("attack", entry.name)
    method, explain_with = attack_of(entry, entry.eps[0]), None
    if interpreter:
        shown_by = entry.interpreter or options.interpreter(interpreter)
        job.check_domain("interpreter", shown_by.name)
        explain_with = interpreter_of(shown_by)
    stems = job.source.stems
    files = [f"{stem}.{part}.png" for stem in stems for part in ("adversarial", "perturbation", "sheet")]
    rows: list[Row] = []
    with atomic_write_all(job.out, [*files, "results.json"], force=job.force) as staging:
        for batch, logits, names in job.batches(entry.name, _passes(entry)):
            # attack the batch, and measure the outcome
            wanted = choose_goal(entry.goal, logits, batch, job.seed, job.model.labels or ())
            generator = torch.Generator(batch.x.device).manual_seed(job.seed)
            x_adv = method(job.differentiated, batch.x.clone(), batch.y, goal=wanted, generator=generator).detach()
            measured = _measured(job.model, entry, batch, x_adv, wanted)
            # explain the clean and the adversarial images
            maps = None
            if explain_with is not None:
                shown = (batch.x, logits.argmax(1)), (x_adv, measured["pred_adv"])
                maps = [explain_with(job.differentiated, x, k).detach() for x, k in shown]
                measured |= _map_distances(*maps)
            # write the pictures of every image
            found = [{**a, **b} for a, b in zip(job.about(batch, logits), rows_of(measured), strict=True)]
            for i, (stem, row) in enumerate(zip(names, found, strict=True)):
                row["class_adv"] = job.model.name_of(row["pred_adv"])
                row["outcome"] = _outcome(row, aimed=not entry.card.facts.keeps_prediction)
                row["file"] = f"{stem}.adversarial.png"
                _draw_attack(staging, stem, row, batch.x[i], x_adv[i], interpreter, [m[i] for m in maps or ()])
            rows += found
        (staging / "results.json").write_text(to_json(rows) + "\n", encoding="utf-8")
    who = {"id": "image", "label": "label", "class": "clean", "class_adv": "became", "conf_adv": "conf"}
    norm = entry.norm if entry.norm in (*BALLS, "pixels") else "l2"  # other changes are reported by their L2 norm
    what = {"outcome": "outcome", norm: name_of_norm(norm), "map_l1": "map L1", "map_iou": "map IoU"}
    job.show(rows, {**who, **what})


def _outcome(row: Row, *, aimed: bool) -> str:
    """Return the outcome in words; images that the model misclassified before are not counted as successes.

    Args:
        row: the measurements of one image.
        aimed: whether the attack aims at the prediction, and does not want to keep it.
    """
    if "goal" not in row and row["label"] not in (None, row["pred"]):
        return "misclassified before"
    if not row["success"]:
        return "not fooled" if aimed else "class kept"
    return "fooled" if row["success_saved"] else "fooled, not as PNG"


def _passes(entry: AttackSpec) -> int:
    """Return the approximate number of forward passes per image."""
    known = {name: option.default for name, option in find("attack", entry.name).options.items()} | entry.options
    if isinstance(queries := known.get("queries"), int):
        return queries
    steps = sum(int(value or 10) for name, value in known.items() if name.endswith("steps"))
    return max(1, steps) * int(known.get("restarts") or 1)


def _measured(
    model: Classifier, entry: AttackSpec, batch: Batch, x_adv: Tensor, goal: Tensor | None
) -> dict[str, Tensor]:
    """Return the outcome as measured on the adversarial images, and whether they succeed when stored as 8-bit PNG."""
    from underfire.measures.outcome import attack_outcome
    from underfire.measures.perturbation import l0_pixels
    from underfire.measures.prediction import success

    saved = model.predict((x_adv * 255).round() / 255)
    return {
        **({} if goal is None else {"goal": goal}),
        **attack_outcome(
            model.predict, batch.x, x_adv, batch.y, goal, norm=str(entry.norm), eps=entry.eps[0], domain=model.domain
        ),
        "success_saved": success(saved, batch.y, goal),
        "pixels": l0_pixels(batch.x, x_adv),
    }


def _map_distances(clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """Return the distance and the overlap of the clean and the adversarial maps."""
    from underfire.measures import maps

    return {"map_l1": maps.map_l1(clean, adversarial), "map_iou": maps.map_iou(clean, adversarial)}


def _draw_attack(
    staging: Path, stem: str, row: Row, x: Tensor, x_adv: Tensor, interpreter: str | None, maps: list[Tensor]
) -> None:
    """Write the adversarial image, its magnified perturbation and a sheet with the maps."""
    from underfire import figures

    change, factor = figures.magnify(x, x_adv)
    figures.save(x_adv, staging / f"{stem}.adversarial.png")
    figures.save(change, staging / f"{stem}.perturbation.png")
    panels = {
        f"clean: {row['class']} ({row['conf']:.0%})": x,
        f"perturbation × {factor:.3g}": change,
        f"adversarial: {row['class_adv']} ({row['conf_adv']:.0%})": x_adv,
    }
    for title, m, image in zip(("clean", "adversarial"), maps, (x, x_adv), strict=False):
        panels[f"{interpreter}, {title}"] = figures.heatmap(m, image)
    figures.save(figures.sheet([list(panels.values())], column_titles=list(panels)), staging / f"{stem}.sheet.png")
