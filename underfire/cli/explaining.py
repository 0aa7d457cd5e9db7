"""`underfire explain`: apply an interpreter to images and write its maps, images, examples or rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import Card, find
from underfire.cli import options
from underfire.cli.images import class_of
from underfire.cli.pictures import Job, Row, rows_of
from underfire.cli.progress import progress
from underfire.cli.shared import ERR, atomic_write_all, to_json
from underfire.errors import InputError, NotFitted

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.data import Dataset
    from underfire.records import Batch


@dataclass(frozen=True)
class PreparedInterpreter:
    """An interpreter with its options, fitted if necessary.

    Attributes:
        card: its card in the catalogue.
        call: returns the explanation of `(model, x, y)`; where the card has `detailed`, with figures about the map.
        known: the images of `--reference`, or None.
        passes: the approximate number of passes per image, for the progress bar.
    """

    card: Card
    call: Any
    known: Dataset | None
    passes: int

    @property
    def gives(self) -> str:
        """The kind of explanation: `"map"`, `"images"`, `"examples"` or `"rules"`."""
        return self.card.facts.gives

    @cached_property
    def images(self) -> Tensor | None:
        """The images of `--reference`, `[N, C, H, W]`; None without them."""
        return None if self.known is None else self.known[:].x

    def __call__(self, job: Job, x: Tensor, y: Tensor, **more: Any) -> Any:
        """Return the explanation.

        Raises:
            InputError: the interpreter must be fitted first.
        """
        try:
            return self.call(job.model, x, y, **more)
        except NotFitted as error:
            weights = " or --set weights=FILE" if "weights" in self.card.options else ""
            raise InputError(f"{error}; here: --reference DATA_URI{weights}") from None


@dataclass(frozen=True)
class ExplainedBatch:
    """A batch of images to explain.

    Attributes:
        batch: the images.
        logits: the logits of the model, `[B, K]`.
        wanted: the class of `--goal` for each image, int64 `[B]`, or None.
        stems: the file names without suffix.
        rows: the results of each image; functions add to them.
        staging: the folder to write into.
    """

    batch: Batch
    logits: Tensor
    wanted: Tensor | None
    stems: tuple[str, ...]
    rows: list[Row]
    staging: Path

    @property
    def classes(self) -> Tensor:
        """The class to explain: the wanted one, or the predicted one; int64 `[B]`."""
        return self.logits.argmax(1) if self.wanted is None else self.wanted


def prepare(
    job: Job, name: str, settings: tuple[str, ...], reference: str | None, reference_n: int | None
) -> PreparedInterpreter:
    """Return the interpreter `name` with its settings, fitted to the images of `--reference` if it learns from data.

    Raises:
        InputError: there is no such interpreter or option, or it takes no reference.
    """
    from underfire.audit.labels import open_data
    from underfire.audit.methods import interpreter_of, values_of

    card = find("interpreter", name)
    entry = options.interpreter(name, settings, maps_only=False)
    job.check_domain("interpreter", name)
    call = interpreter_of(entry)
    if card.facts.detailed is not None:
        call = partial(card.facts.detailed, **values_of(entry))
    values = {n: p.default for n, p in card.options.items()} | entry.options
    passes = prod(max(v, 1) for n in ("steps", "binary_search_steps", "samples") if isinstance(v := values.get(n), int))
    if reference is None:
        return PreparedInterpreter(card, call, None, passes)
    if not card.fitted and "known" not in card.options:
        raise InputError(f"{name} does not learn from data; leave out --reference")
    known = open_data(reference, job.model, n=reference_n, seed=job.seed)
    if card.fitted:
        _fit(job, name, call, known)
    return PreparedInterpreter(card, call, known, passes)


def _fit(job: Job, name: str, method: Any, known: Dataset) -> None:
    """Fit an interpreter to the images of `--reference` under a progress bar."""
    from underfire.hooks import unwrap

    seen = 0

    def passed(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
        nonlocal seen
        seen += len(inputs[0])
        show(min(seen, len(known)))

    with progress(f"fitting {name}", len(known), unit="images", quiet=job.quiet) as show:
        handle = unwrap(job.model).register_forward_hook(passed)
        try:
            method.fit(job.model, known)
        finally:
            handle.remove()
        show(len(known))


def explain(
    job: Job,
    name: str,
    goal: str | None,
    settings: tuple[str, ...],
    reference: str | None = None,
    reference_n: int | None = None,
) -> None:
    """Explain the predicted class of the images of `job`, or the class `goal`, and write the results.

    For an interpreter that returns changed images, `goal` is the class that the changed images should get.
    """
    import torch

    method = prepare(job, name, settings, reference, reference_n)
    show, endings, columns = _WRITERS[method.gives]
    files = [f"{stem}.{ending.format(name=name)}" for stem in job.source.stems for ending in endings]
    rows: list[Row] = []
    with atomic_write_all(job.out, [*files, "results.json"], force=job.force) as staging:
        for batch, logits, names in job.batches(name, method.passes):
            wanted = None if goal is None else torch.full_like(batch.y, class_of(job.model, logits.shape[1], goal))
            part = ExplainedBatch(batch, logits, wanted, names, job.about(batch, logits), staging)
            show(job, method, part)
            rows += part.rows
        (staging / "results.json").write_text(to_json(rows) + "\n", encoding="utf-8")
    job.show(rows, columns)
    if method.gives == "rules" and not job.quiet:
        ERR.print(f"tree and network agree on {method.call.fidelity} of the held-out images", end="")
        ERR.print(f"; a constant answer agrees on {method.call.constant.value:.3f}")


def _explained(job: Job, part: ExplainedBatch, y: Tensor) -> None:
    """Add the explained classes `y` to the rows."""
    for row, k in zip(part.rows, y.tolist(), strict=True):
        row |= {"explained": k, "explained_class": job.model.name_of(k)}


def _show_maps(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    from underfire import figures
    from underfire.measures.localisation import mass_inside

    k = part.classes
    maps = method(job, part.batch.x, k)
    maps, figures_of_maps = maps if isinstance(maps, tuple) else (maps, {})
    maps = maps.detach()
    measured = {"map_min": maps.amin((1, 2, 3)), "map_max": maps.amax((1, 2, 3))}
    if part.batch.mask is not None:
        measured["mass_inside"] = mass_inside(maps, part.batch.mask)
    measured |= figures_of_maps
    _explained(job, part, k)
    for i, (stem, row, more) in enumerate(zip(part.stems, part.rows, rows_of(measured), strict=True)):
        row |= {**more, "file": f"{stem}.{method.card.name}.png"}
        figures.save(figures.heatmap(maps[i], part.batch.x[i]), part.staging / row["file"], at_least=224)


def _show_images(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    import torch

    from underfire import figures
    from underfire.measures import perturbation, prediction

    x, wanted, pred = part.batch.x, part.wanted, part.logits.argmax(1)
    every = torch.arange(len(x), device=x.device)
    rest = every if wanted is None else every[pred != wanted]  # the other images have the wanted class already
    more: dict[str, Any] = {} if wanted is None else {"goal": wanted[rest]}
    if method.images is not None:
        more["known"] = method.images.to(x)
    changed = x.clone()
    if len(rest):
        changed[rest] = method(job, x[rest], pred[rest], **more).detach()
    answers, saved = job.model.predict(changed), job.model.predict((changed * 255).round() / 255).argmax(1)
    became = answers.argmax(1)
    there = became != pred if wanted is None else became == wanted
    measured = {
        "pred_changed": became,
        "conf_changed": prediction.confidence(answers, became),
        "success": there,
        "success_saved": saved != pred if wanted is None else saved == wanted,
        "in_box": perturbation.in_box(changed),
        **perturbation.sizes(x, changed),
        "pixels": perturbation.l0_pixels(x, changed),
    }
    _explained(job, part, pred)
    for i, (stem, row, found) in enumerate(zip(part.stems, part.rows, rows_of(measured), strict=True)):
        row |= {**found, "class_changed": job.model.name_of(found["pred_changed"])}
        row["outcome"] = _outcome(row, None if wanted is None else int(wanted[i]))
        row["file"] = f"{stem}.{method.card.name}.png"
        change, factor = figures.magnify(x[i], changed[i])
        panels = {
            f"image: {row['class']} ({row['conf']:.0%})": x[i],
            f"{row['outcome']}: {row['class_changed']} ({row['conf_changed']:.0%})": changed[i],
            f"change × {factor:.3g}": change,
        }
        figures.save(changed[i], part.staging / row["file"])
        sheet = figures.sheet([list(panels.values())], column_titles=list(panels))
        figures.save(sheet, part.staging / f"{stem}.sheet.png")


def _outcome(row: Row, wanted: int | None) -> str:
    """Return the outcome for a changed image in words."""
    if wanted == row["pred"]:
        return "no change needed"
    if not row["success"]:
        return "not found"
    return "changed" if row["success_saved"] else "changed, not as PNG"


def _show_examples(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    from underfire import figures

    k = part.classes
    found = method(job, part.batch.x, k)
    labels = None if method.known is None else method.known.labels
    _explained(job, part, k)
    for i, (stem, row) in enumerate(zip(part.stems, part.rows, strict=True)):
        panels, titles = [part.batch.x[i]], [f"image: {row['class']} ({row['conf']:.0%})"]
        row["examples"] = []
        for j, note in enumerate(found.notes[i]):
            if not note:
                continue
            y, far = int(found.y[i, j]), float(found.distance[i, j])
            kind = labels[y] if labels is not None else str(y)
            row["examples"].append({"note": note, "id": found.ids[i][j], "class": kind, "distance": far})
            panels.append(found.x[i, j])
            titles.append(f"{note}: {kind} (at {far:.2g})")
        row["file"] = f"{stem}.{method.card.name}.png"
        figures.save(figures.sheet([panels], column_titles=titles), part.staging / row["file"])


def _show_rules(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    k = part.classes
    _explained(job, part, k)
    for stem, row, rules in zip(part.stems, part.rows, method(job, part.batch.x, k), strict=True):
        row |= {"rules": rules, "fidelity": method.call.fidelity, "file": f"{stem}.{method.card.name}.txt"}
        text = "\n".join([*rules, "", f"The whole tree (fidelity {method.call.fidelity}):", "", method.call.text])
        (part.staging / row["file"]).write_text(text, encoding="utf-8")


_WHO = {"id": "image", "class": "prediction", "conf": "conf"}
_DETAILS = {"completeness_gap": "gap", "r2": "R²"}
_EXPLAINED = {**_WHO, "explained_class": "explained"}
_Writer = Callable[[Job, PreparedInterpreter, ExplainedBatch], None]
# For each kind of explanation: the function that writes it, the files of an image, and the columns of the table.
_WRITERS: dict[str, tuple[_Writer, tuple[str, ...], dict[str, str]]] = {
    "map": (_show_maps, ("{name}.png",), {**_EXPLAINED, "mass_inside": "in evidence", **_DETAILS}),
    "images": (
        _show_images,
        ("{name}.png", "sheet.png"),
        {**_WHO, "outcome": "outcome", "class_changed": "became", "conf_changed": "conf", "pixels": "pixels changed"},
    ),
    "examples": (_show_examples, ("{name}.png",), {**_EXPLAINED, "examples": "examples"}),
    "rules": (_show_rules, ("{name}.txt",), {**_EXPLAINED, "rules": "rules"}),
}
