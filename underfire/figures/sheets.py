"""Many pictures side by side, with titles, and their way into a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from torch import Tensor

from underfire.errors import InputError
from underfire.figures.overlay import rgb, scale, to_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND = 0.42  # inches
_INK = "#1a1a1a"


def sheet(
    rows: Sequence[Sequence[Tensor | None]],
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    *,
    cell: float = 1.7,
    legend: bool = False,
) -> Figure:
    """Images in rows and columns with a title for each, as a matplotlib figure that belongs to no window.

    Args:
        rows: images `[C, H, W]` in [0, 1], any sizes; None leaves a cell empty.
        row_titles: one for each row, at its left; or none.
        column_titles: one for each column, above it; or none.
        cell: side of a cell in inches.
        legend: say below what the colours of attribution maps mean.

    Raises:
        InputError: there is no image, rows differ in length, or the titles are not as many as rows or columns.
    """
    from matplotlib.figure import Figure

    columns = len(rows[0]) if rows else 0
    if not columns or any(len(row) != columns for row in rows):
        raise InputError(f"a sheet needs rows of one length, got {[len(row) for row in rows]}")
    for what, titles, count in (("row", row_titles, len(rows)), ("column", column_titles, columns)):
        if titles and len(titles) != count:
            raise InputError(f"a sheet of {count} {what}s needs {count} {what} titles, got {len(titles)}")
    left = 1.15 if row_titles else 0.0
    above = [fill(title, round(11.8 * cell)) for title in column_titles]
    top = 0.17 * max((title.count("\n") + 1 for title in above), default=0) + (0.1 if above else 0.0)
    bottom = _LEGEND if legend else 0.0
    width, height = left + columns * cell, top + len(rows) * cell + bottom
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=left / width, right=1, bottom=bottom / height, top=1 - top / height, wspace=0.06, hspace=0.06
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axis = axes[i, j]
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            if image is not None:
                small = min(image.shape[-2:]) < 128  # its pixels are the content: show them as squares
                axis.imshow(rgb(image).permute(1, 2, 0).numpy(), interpolation="nearest" if small else "antialiased")
            if above and i == 0:
                axis.set_title(above[j], fontsize=10, color=_INK, pad=5)
            if row_titles and j == 0:
                axis.set_ylabel(
                    fill(row_titles[i], 14), fontsize=10, color=_INK, rotation=0, ha="right", va="center", labelpad=6
                )
    if legend:
        _explain_colours(figure)
    return figure


def _explain_colours(figure: Figure) -> None:
    """Two strips of colour at the foot: maps of one sign, and maps that also speak against the class."""
    width, height = figure.get_size_inches()
    long = min(1.0, (width - 0.4) / 6)
    for middle, signed, low, high in ((0.27, False, "no evidence", "evidence"), (0.75, True, "against", "for")):
        strip = figure.add_axes((middle - long / 2 / width, 0.14 / height, long / width, 0.12 / height))
        strip.imshow(scale(signed).permute(1, 2, 0).numpy(), aspect="auto")
        strip.set(xticks=[], yticks=[])
        strip.set_frame_on(False)
        strip.text(-6, 0, low, ha="right", va="center", fontsize=9, color=_INK)
        strip.text(262, 0, high, ha="left", va="center", fontsize=9, color=_INK)


def save(picture: Figure | Tensor, path: str | Path, *, at_least: int = 0) -> None:
    """Write a figure, or an image `[C, H, W]`, to a file; the ending of the path says which format.

    Small images grow by a whole factor until both sides have `at_least` pixels.

    Raises:
        InputError: the folder does not exist, or the ending names no format of pictures.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path.name}: the folder {path.parent} does not exist")
    try:
        if isinstance(picture, Tensor):
            to_image(picture, at_least).save(path)
        else:
            picture.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.08)
    except ValueError as error:  # what both libraries raise before they open the file
        raise InputError(f"cannot write {path.name}: {path.suffix!r} names no picture format, use .png") from error
