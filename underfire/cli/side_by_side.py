"""`underfire explain --all`: draw the maps of every interpreter, for several classes, as one figure for each image."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from underfire.classes import class_number
from underfire.cli.pictures import Job, Row
from underfire.cli.shared import ERR, atomic_write_all, publish, to_json

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.errors import UnderfireError

ALL_CLASSES = 10  # with at most this many classes, all are shown by default
ACROSS = 6  # pictures in one row of the sheet of an image
LIKELIEST = 3  # with more, this number of most likely ones
CONSTANT = "constant map: no pixel counts more than another"
EVERY = 20.0  # seconds between two drawings of a sheet that is not finished
_PASSES = 100_000  # approximate number of forward passes for an image with ten classes, for the progress bar


def explain_all(job: Job, names: tuple[str, ...], goal: str | None, classes: int | None) -> None:
    """Write one figure for each image of `job`, with a row for each interpreter and a column for each class.

    The first row shows the image. A cell without a map says why. A figure is in the folder as soon as it is drawn, and
    that of the current image is drawn again every `EVERY` seconds, with the rows that are finished.

    Args:
        job: the model, the images and the folder to write into.
        names: the interpreters; empty for all that return maps.
        goal: the only class to explain; None explains several.
        classes: number of most likely classes; None takes all of up to ten classes, and three of more.

    Raises:
        InputError: an interpreter does not exist or returns no map.
    """
    import torch

    from underfire.attribution.comparison import map_cards, run_all_interpreters
    from underfire.domains import domain_of
    from underfire.errors import InputError, UnderfireError, nearest

    domain_of(job.model).require_images("explain --all")
    known = [card.name for card in map_cards()]
    for name in names:
        if name not in known:
            raise InputError(f"underfire explain --all draws maps, and {name!r} returns none; {nearest(name, known)}")
    files = [f"{stem}.all.png" for stem in job.source.stems]
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with atomic_write_all(job.out, [*files, "results.json"], force=job.force) as staging:
        passes = _PASSES * (len(names) or len(known)) // len(known)
        for batch, logits, stems in job.batches(", ".join(names) or "every interpreter", passes):
            for x, score, stem, row in zip(batch.x, logits, stems, job.about(batch, logits), strict=True):
                # compute the maps, one line of the sheet for each interpreter
                k = _columns(job, score, goal, classes)
                chances = torch.softmax(score, 0)[k].tolist()
                sheet = Sheet(
                    x, [f"{job.model.name_of(i)} ({p:.0%})" for i, p in zip(k.tolist(), chances, strict=True)]
                )
                drawn = time.monotonic()
                found = run_all_interpreters(job.differentiated, x.expand(len(k), -1, -1, -1), k, only=names)
                for card, maps in found:
                    sheet.add(card.name, maps)
                    if isinstance(maps, UnderfireError):
                        left_out[card.name] = str(maps)
                    if time.monotonic() - drawn > EVERY:
                        sheet.save(staging / f"{stem}.all.png")
                        publish(staging, job.out, f"{stem}.all.png")
                        drawn = time.monotonic()
                # what is finished is in the folder, also if the next image is interrupted
                sheet.save(staging / f"{stem}.all.png")
                rows.append(
                    {**row, "explained": k.tolist(), "interpreters": sheet.with_maps, "file": f"{stem}.all.png"}
                )
                document = [{**row, "left_out": left_out} for row in rows]
                (staging / "results.json").write_text(to_json(document) + "\n", encoding="utf-8")
                for name in (f"{stem}.all.png", "results.json"):
                    publish(staging, job.out, name)
    job.show(document, {"id": "image", "class": "prediction", "conf": "conf", "file": "sheet"})
    if not job.quiet:
        for name, why in left_out.items():
            ERR.print(f"left out: {name}: {why}", soft_wrap=True)


class Sheet:
    """A figure with a row for each interpreter and a column for each class, below a row with the image.

    Attributes:
        with_maps: the names of the interpreters that have a map.
    """

    def __init__(self, x: Tensor, heads: list[str]) -> None:
        self.x, self.heads = x, heads
        self.rows: list[list[Tensor | str | None]] = [[x, *[None] * (len(heads) - 1)]]
        self.titles = ["image"]
        self.with_maps: list[str] = []

    def add(self, name: str, maps: Tensor | UnderfireError) -> None:
        """Add the row of an interpreter: its maps `[k, 1, h, w]`, or the reason why it has none."""
        from underfire import figures
        from underfire.errors import UnderfireError
        from underfire.measures.maps import informative

        self.titles.append(name)
        if isinstance(maps, UnderfireError):
            self.rows.append([str(maps), *[None] * (len(self.heads) - 1)])
            return
        cells = zip(maps, informative(maps).tolist(), strict=True)
        self.rows.append([figures.heatmap(m, self.x) if ranks else CONSTANT for m, ranks in cells])
        self.with_maps.append(name)

    def save(self, path: Path) -> None:
        """Draw the sheet and write it to a file."""
        from underfire import figures

        cell = 1.7 if len(self.heads) <= LIKELIEST else 1.0
        figures.save(figures.sheet(self.rows, self.titles, self.heads, cell=cell, legend=True), path)


def write_sheets(
    stems: Sequence[str], rows: Sequence[Row], x: Tensor, drawn: Mapping[str, list[tuple[str, Tensor]]], folder: Path
) -> None:
    """Write a sheet for each image that has maps: the image, its maps, and a legend of the colours.

    Args:
        stems: the file names without suffix.
        rows: the results of each image, with its class and confidence.
        x: the images `[B, C, H, W]`.
        drawn: the maps over their images with their titles, by the stem; empty for explanations that are no maps.
        folder: the folder to write into.
    """
    from underfire import figures

    for stem, row, image in zip(stems, rows, x, strict=True) if drawn else ():
        cells: list[tuple[str, Tensor | None]] = [(f"image: {row['class']} ({row['conf']:.0%})", image), *drawn[stem]]
        lines = [cells[start : start + ACROSS] for start in range(0, len(cells), ACROSS)]
        lines[-1] += [("", None)] * (len(lines[0]) - len(lines[-1]))
        titles = [[title for title, _ in line] for line in lines]
        figure = figures.sheet([[picture for _, picture in line] for line in lines], titles=titles, legend=True)
        figures.save(figure, folder / f"{stem}.sheet.png")


def _columns(job: Job, logits: Tensor, goal: str | None, classes: int | None) -> Tensor:
    """Return the classes to explain for one image, int64 `[k]`."""
    import torch

    count = len(logits)
    if goal is not None:
        return torch.tensor([class_number(goal, job.model.labels or (), count)], device=logits.device)
    if classes is None and count <= ALL_CLASSES:
        return torch.arange(count, device=logits.device)
    return logits.topk(min(classes or LIKELIEST, count)).indices
