"""`underfire explain --all`: draw the maps of every interpreter, for several classes, as one figure for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underfire.classes import class_number
from underfire.cli.pictures import Job, Row
from underfire.cli.shared import ERR, atomic_write_all, publish, to_json

if TYPE_CHECKING:
    from torch import Tensor

ALL_CLASSES = 10  # with at most this many classes, all are shown by default
LIKELIEST = 3  # with more, this number of most likely ones
_PASSES = 100_000  # approximate number of forward passes for an image with ten classes, for the progress bar


def explain_all(job: Job, goal: str | None, classes: int | None) -> None:
    """Write one figure for each image of `job`, with a row for each interpreter and a column for each class.

    Each figure is in the folder as soon as it is drawn.

    Args:
        job: the model, the images and the folder to write into.
        goal: the only class to explain; None explains several.
        classes: number of most likely classes; None takes all of up to ten classes, and three of more.
    """
    import torch

    from underfire import figures
    from underfire.attribution.comparison import run_all_interpreters
    from underfire.domains import domain_of
    from underfire.errors import UnderfireError
    from underfire.measures.maps import informative

    domain_of(job.model).require_images("explain --all")
    files = [f"{stem}.all.png" for stem in job.source.stems]
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with atomic_write_all(job.out, [*files, "results.json"], force=job.force) as staging:
        for batch, logits, names in job.batches("every interpreter", _PASSES):
            for x, score, stem, row in zip(batch.x, logits, names, job.about(batch, logits), strict=True):
                # compute the maps, one line of the sheet for each interpreter
                k = _columns(job, score, goal, classes)
                sheet: list[list[Tensor | None]] = []
                titles = []
                for card, maps in run_all_interpreters(job.differentiated, x.expand(len(k), -1, -1, -1), k):
                    if isinstance(maps, UnderfireError):
                        left_out[card.name] = str(maps)
                        continue
                    known = informative(maps).tolist()  # the cell of a constant map stays empty
                    sheet.append([figures.heatmap(m, x) if ok else None for m, ok in zip(maps, known, strict=True)])
                    titles.append(card.name)
                # draw the sheet
                heads = [
                    f"{job.model.name_of(i)} ({p:.0%})"
                    for i, p in zip(k.tolist(), torch.softmax(score, 0)[k].tolist(), strict=True)
                ]
                shown = [[x, *line] for line in sheet] if len(k) == 1 else sheet
                heads = ["image", *heads] if len(k) == 1 else heads
                figure = figures.sheet(shown, titles, heads, cell=1.7 if len(k) <= LIKELIEST else 1.0, legend=True)
                figures.save(figure, staging / f"{stem}.all.png")
                rows.append({**row, "explained": k.tolist(), "interpreters": titles, "file": f"{stem}.all.png"})
                # what is finished is in the folder, also if the next image is interrupted
                document = [{**row, "left_out": left_out} for row in rows]
                (staging / "results.json").write_text(to_json(document) + "\n", encoding="utf-8")
                for name in (f"{stem}.all.png", "results.json"):
                    publish(staging, job.out, name)
    job.show(document, {"id": "image", "class": "prediction", "conf": "conf", "file": "sheet"})
    if not job.quiet:
        for name, why in left_out.items():
            ERR.print(f"left out: {name}: {why}", soft_wrap=True)


def _columns(job: Job, logits: Tensor, goal: str | None, classes: int | None) -> Tensor:
    """Return the classes to explain for one image, int64 `[k]`."""
    import torch

    count = len(logits)
    if goal is not None:
        return torch.tensor([class_number(goal, job.model.labels or (), count)], device=logits.device)
    if classes is None and count <= ALL_CLASSES:
        return torch.arange(count, device=logits.device)
    return logits.topk(min(classes or LIKELIEST, count)).indices
