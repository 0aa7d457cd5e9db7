"""`underfire explain`: apply an interpreter to images and write its maps, images, examples or rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.catalog import find
from underfire.classes import class_number
from underfire.cli.pictures import Job, Row, rows_of
from underfire.cli.preparing import PreparedInterpreter, prepare
from underfire.cli.shared import ERR, atomic_write_all, to_json
from underfire.cli.side_by_side import write_sheets
from underfire.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.audit.schema import MeasureSpec
    from underfire.records import Batch


@dataclass(frozen=True)
class ExplainedBatch:
    """A batch of images to explain.

    Attributes:
        batch: the images.
        logits: the logits of the model, `[B, K]`.
        wanted: the class of `--goal` for each image, int64 `[B]`, or None.
        stems: the file names without suffix.
        rows: the results of each image; the functions that write an explanation add to them.
        staging: the folder to write into.
        measures: measures of the maps.
        npy: whether to write the maps themselves.
        drawn: the maps over their images, drawn so far, by the stem; each with its title.
    """

    batch: Batch
    logits: Tensor
    wanted: Tensor | None
    stems: tuple[str, ...]
    rows: list[Row]
    staging: Path
    measures: tuple[MeasureSpec, ...] = ()
    npy: bool = False
    drawn: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)

    @property
    def classes(self) -> Tensor:
        """The class to explain: the wanted one, or the predicted one; int64 `[B]`."""
        return self.logits.argmax(1) if self.wanted is None else self.wanted


def explain(
    job: Job,
    names: tuple[str, ...],
    goal: str | None,
    settings: tuple[str, ...],
    reference: str | None = None,
    reference_n: int | None = None,
    measures: tuple[str, ...] = (),
    npy: bool = False,
) -> None:
    """Explain the predicted class of the images of `job`, or the class `goal`, and write the results.

    For an interpreter that returns changed images, `goal` is the class that the changed images should get.

    Args:
        job: the model, the images and the folder to write into.
        names: the interpreters; several must return maps.
        goal: a class by name or number, or None.
        settings: options `name=value`; each applies to all interpreters that have it.
        reference: the URI of images to fit interpreters to, or to compare with.
        reference_n: how many of them; None takes all.
        measures: names of measures of the maps.
        npy: whether to write the maps themselves, as NumPy files.
    """
    import torch

    # check the options
    methods = [prepare(job, name, _settings_of(name, names, settings), reference, reference_n) for name in names]
    kinds = {method.gives for method in methods}
    if kinds != {"map"} and (len(methods) > 1 or measures or npy):
        other = next(method for method in methods if method.gives != "map")
        raise InputError(f"{other.card.name} gives {other.gives}; several names, --measure and --npy need maps")
    write, endings, columns = _WRITERS[methods[0].gives]
    endings = (*endings, "{name}.npy") if npy else endings
    specs = _measures(measures)
    files = [f"{stem}.{end.format(name=name)}" for stem in job.source.stems for name in names for end in endings]
    files = list(dict.fromkeys(files))  # the maps of several interpreters share a sheet
    # explain the images batch by batch
    rows: list[Row] = []
    with atomic_write_all(job.out, [*files, "results.json"], force=job.force) as staging:
        for batch, logits, stems in job.batches(", ".join(names), sum(method.passes for method in methods)):
            known, outputs = job.model.labels or (), logits.shape[1]
            wanted = None if goal is None else torch.full_like(batch.y, class_number(goal, known, outputs))
            drawn: dict[str, list[tuple[str, Tensor]]] = {}
            for method in methods:
                about = [{"interpreter": method.card.name, **row} for row in job.about(batch, logits)]
                part = ExplainedBatch(batch, logits, wanted, stems, about, staging, specs, npy, drawn)
                write(job, method, part)
                rows += part.rows
            write_sheets(part.stems, part.rows, part.batch.x, drawn, staging)
        (staging / "results.json").write_text(to_json(rows) + "\n", encoding="utf-8")
    # print the table, and what a reader of it must know
    several = {"interpreter": "interpreter"} if len(methods) > 1 else {}
    job.show(rows, {**several, **columns, **{entry.title: entry.title for entry in specs}})
    undecided = sum(row.get("won") is False for row in rows)
    if undecided and not job.quiet:
        ERR.print(
            f"in {undecided} of {len(rows)} maps, the region does not decide the class (see conf deleted, conf kept)"
        )
    if methods[0].gives == "rules" and not job.quiet:
        ERR.print(f"tree and network agree on {methods[0].call.fidelity} of the held-out images", end="")
        ERR.print(f"; a constant answer agrees on {methods[0].call.constant.value:.3f}")


def _settings_of(name: str, names: tuple[str, ...], settings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the settings for one of several interpreters, without the options that only other interpreters have.

    Options that no interpreter has are kept, so that the check of the options refuses them.
    """
    options = {other: find("interpreter", other).options for other in names}
    keys = [setting.partition("=")[0] for setting in settings]
    unknown = [key for key in keys if not any(key in known for known in options.values())]
    chosen = {*options[name], *unknown}
    return tuple(setting for setting, key in zip(settings, keys, strict=True) if key in chosen)


def _measures(names: tuple[str, ...]) -> tuple[MeasureSpec, ...]:
    """Return measures of single maps by their names.

    Raises:
        InputError: there is no such measure, or it compares two maps.
    """
    from underfire.audit.binding import compares, usable
    from underfire.audit.schema import MeasureSpec

    known = [name for name in usable("maps") if not compares(find("measure", name))] if names else []
    for name in names:
        if name not in known:
            raise InputError(f"--measure {name!r} measures no single map; {nearest(name, known)}")
    return tuple(MeasureSpec(name=name) for name in names)


def _add_explained_classes(job: Job, part: ExplainedBatch, y: Tensor) -> None:
    """Add the explained classes `y` to the rows."""
    for row, k in zip(part.rows, y.tolist(), strict=True):
        row |= {"explained": k, "explained_class": job.model.name_of(k)}


def _write_maps(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    """Write the maps of a batch over their images, and add the figures of the maps to the rows."""
    import numpy as np

    from underfire import figures
    from underfire.measures.localisation import mass_inside

    k = part.classes
    maps = method(job, part.batch.x, k)
    maps, figures_of_maps = maps if isinstance(maps, tuple) else (maps, {})
    maps = maps.detach()
    measured = {"map_min": maps.amin((1, 2, 3)), "map_max": maps.amax((1, 2, 3))}
    if part.batch.mask is not None:
        measured["mass_inside"] = mass_inside(maps, part.batch.mask)
    measured |= figures_of_maps | _measured(job, method, part, maps)
    _add_explained_classes(job, part, k)
    for i, (stem, row, more) in enumerate(zip(part.stems, part.rows, rows_of(measured), strict=True)):
        row |= {**more, "file": f"{stem}.{method.card.name}.png", "sheet": f"{stem}.sheet.png"}
        picture = figures.heatmap(maps[i], part.batch.x[i])
        figures.save(picture, part.staging / row["file"], at_least=224)
        part.drawn.setdefault(stem, []).append((f"{method.card.name}: {row['explained_class']}", picture))
        if part.npy:
            np.save(part.staging / f"{stem}.{method.card.name}.npy", maps[i].cpu().numpy(), allow_pickle=False)


def _measured(job: Job, method: PreparedInterpreter, part: ExplainedBatch, maps: Tensor) -> dict[str, Tensor]:
    """Return the values of the measures of the maps `[B, 1, h, w]`, `[B]` each, by the title of the measure."""
    from underfire.audit.binding import bind

    x, y, mask = part.batch.x, part.classes, part.batch.mask
    values = {"model": job.model, "x": x, "y": y, "m": maps, "logits": part.logits, "mask": mask, "goal": part.wanted}

    def interpreter(_: Any, x: Tensor, y: Tensor) -> Any:
        found = method(job, x, y)
        return found[0] if isinstance(found, tuple) else found

    return {entry.title: bind(entry)({**values, "interpreter": interpreter}) for entry in part.measures}


def _write_images(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    """Write the changed images of a batch beside the originals, and add their outcomes to the rows."""
    import torch

    from underfire import figures
    from underfire.measures import perturbation, prediction

    # change the images that do not have the wanted class already
    x, wanted, pred = part.batch.x, part.wanted, part.logits.argmax(1)
    every = torch.arange(len(x), device=x.device)
    rest = every if wanted is None else every[pred != wanted]
    more: dict[str, Any] = {} if wanted is None else {"goal": wanted[rest]}
    if method.images is not None:
        more["known"] = method.images.to(x)
    changed = x.clone()
    if len(rest):
        changed[rest] = method(job, x[rest], pred[rest], **more).detach()
    # predict the changed images, as they are and as they will be saved
    logits, saved = job.model.predict(changed), job.model.predict((changed * 255).round() / 255).argmax(1)
    pred_changed = logits.argmax(1)
    measured = {
        "pred_changed": pred_changed,
        "conf_changed": prediction.confidence(logits, pred_changed),
        "success": pred_changed != pred if wanted is None else pred_changed == wanted,
        "success_saved": saved != pred if wanted is None else saved == wanted,
        "in_box": perturbation.in_box(changed, domain=job.model.domain),
        **perturbation.sizes(x, changed),
        "pixels": perturbation.l0_pixels(x, changed),
    }
    _add_explained_classes(job, part, pred)
    # write the pictures
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
    """Return the outcome for one image in words."""
    if wanted == row["pred"]:
        return "no change needed"
    if not row["success"]:
        return "not found"
    return "changed" if row["success_saved"] else "changed, not as PNG"


def _write_examples(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    """Write the known images that explain each image of a batch, and add them to the rows."""
    from underfire import figures

    k = part.classes
    found = method(job, part.batch.x, k)
    labels = None if method.known is None else method.known.labels
    _add_explained_classes(job, part, k)
    for i, (stem, row) in enumerate(zip(part.stems, part.rows, strict=True)):
        panels, titles = [part.batch.x[i]], [f"image: {row['class']} ({row['conf']:.0%})"]
        row["examples"] = []
        for j, note in enumerate(found.notes[i]):
            if not note:
                continue
            y, distance = int(found.y[i, j]), float(found.distance[i, j])
            label = labels[y] if labels is not None else str(y)
            row["examples"].append({"note": note, "id": found.ids[i][j], "class": label, "distance": distance})
            panels.append(found.x[i, j])
            titles.append(f"{note}: {label} (at {distance:.2g})")
        row["file"] = f"{stem}.{method.card.name}.png"
        figures.save(figures.sheet([panels], column_titles=titles), part.staging / row["file"])


def _write_rules(job: Job, method: PreparedInterpreter, part: ExplainedBatch) -> None:
    """Write the rules that explain each image of a batch, and add them to the rows."""
    k = part.classes
    _add_explained_classes(job, part, k)
    for stem, row, rules in zip(part.stems, part.rows, method(job, part.batch.x, k), strict=True):
        row |= {"rules": rules, "fidelity": method.call.fidelity, "file": f"{stem}.{method.card.name}.txt"}
        text = "\n".join([*rules, "", f"The whole tree (fidelity {method.call.fidelity}):", "", method.call.text])
        (part.staging / row["file"]).write_text(text, encoding="utf-8")


_IMAGE = {"id": "image", "class": "prediction", "conf": "conf"}
_DETAILS = {"completeness_gap": "gap", "r2": "R²", "p_deleted": "conf deleted", "p_kept": "conf kept"}
_EXPLAINED = {**_IMAGE, "explained_class": "explained"}
_Writer = Callable[[Job, PreparedInterpreter, ExplainedBatch], None]
# For each kind of explanation: the function that writes it, the files of an image, and the columns of the table.
_WRITERS: dict[str, tuple[_Writer, tuple[str, ...], dict[str, str]]] = {
    "map": (_write_maps, ("{name}.png", "sheet.png"), {**_EXPLAINED, "mass_inside": "in evidence", **_DETAILS}),
    "images": (
        _write_images,
        ("{name}.png", "sheet.png"),
        {**_IMAGE, "outcome": "outcome", "class_changed": "became", "conf_changed": "conf", "pixels": "pixels changed"},
    ),
    "examples": (_write_examples, ("{name}.png",), {**_EXPLAINED, "examples": "examples"}),
    "rules": (_write_rules, ("{name}.txt",), {**_EXPLAINED, "rules": "rules"}),
}
