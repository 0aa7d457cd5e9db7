"""Draw sheets of many pictures with titles, and write pictures and sheets to files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING

from torch import Tensor

from underfire.errors import InputError
from underfire.figures.overlay import colour_bar, rgb, to_image
from underfire.files import as_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND = 0.42  # height of the legend in inches
_INK = "#1a1a1a"


def sheet(
    rows: Sequence[Sequence[Tensor | str | None]],
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    *,
    titles: Sequence[Sequence[str]] = (),
    cell: float = 1.7,
    legend: bool = False,
) -> Figure:
    """Draw images in rows and columns, as a matplotlib figure that opens no window.

    Args:
        rows: images `[C, H, W]` in [0, 1], any sizes; a text is written in the place of an image, and None leaves a
            cell empty.
        row_titles: one title for each row, on its left; empty for none.
        column_titles: one title for each column, above it; empty for none.
        titles: one title for each image, above it, in rows like the images; not together with column titles.
        cell: the side of a cell in inches.
        legend: explain the colours of attribution maps below the images.

    Raises:
        InputError: there is no image, rows differ in length, or the number of titles is wrong.
    """
    from matplotlib.figure import Figure

    # check images and titles
    columns = len(rows[0]) if rows else 0
    if not columns or any(len(row) != columns for row in rows):
        raise InputError(f"the rows of a sheet must have one length, at least 1, got {[len(row) for row in rows]}")
    for what, words, count in (("row", row_titles, len(rows)), ("column", column_titles, columns)):
        if words and len(words) != count:
            raise InputError(f"a sheet of {count} {what}s needs {count} {what} titles, got {len(words)}")
    left = 1.15 if row_titles else 0.0
    if titles and (column_titles or [len(line) for line in titles] != [len(row) for row in rows]):
        raise InputError("titles must be one for each image, and cannot be combined with column titles")
    # lay out the figure, in inches
    above = [[fill(title, round(11.8 * cell)) for title in line] for line in titles or [column_titles]]
    most = max((title.count("\n") + 1 for line in above for title in line), default=0)
    top = 0.17 * most + 0.1 if most else 0.0
    row_gap = top if titles else 0.0  # space for the titles between two rows
    bottom = _LEGEND if legend else 0.0
    width, height = left + columns * cell, top + len(rows) * cell + (len(rows) - 1) * row_gap + bottom
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(left / width, bottom / height, 1, 1 - top / height, 0.06, 0.06 + row_gap / cell)
    # draw the cells
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axis = axes[i, j]
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            if isinstance(image, str):
                words = fill(shorten(image, round(150 * cell), placeholder=" ..."), round(17 * cell))
                axis.text(0.5, 0.5, words, ha="center", va="center", fontsize=7, color=_INK, transform=axis.transAxes)
            elif image is not None:
                small = min(image.shape[-2:]) < 128  # show single pixels as squares
                axis.imshow(rgb(image).permute(1, 2, 0).numpy(), interpolation="nearest" if small else "antialiased")
            if i < len(above) and above[i]:
                axis.set_title(above[i][j], fontsize=10, color=_INK, pad=5)
            if row_titles and j == 0:
                axis.set_ylabel(
                    _wrap(row_titles[i]), fontsize=10, color=_INK, rotation=0, ha="right", va="center", labelpad=6
                )
    if legend:
        _explain_colours(figure)
    return figure


def _wrap(title: str) -> str:
    """Break the title of a row into short lines, at spaces and after underscores."""
    return fill(title.replace("_", "_ "), 14).replace("_ ", "_")


def _explain_colours(figure: Figure) -> None:
    """Draw two colour bars below the images: for maps without and for maps with negative values."""
    width, height = figure.get_size_inches()
    long = min(1.0, (width - 0.4) / 6)
    for centre, signed, low, high in ((0.27, False, "no evidence", "evidence"), (0.75, True, "against", "for")):
        strip = figure.add_axes((centre - long / 2 / width, 0.14 / height, long / width, 0.12 / height))
        strip.imshow(colour_bar(signed).permute(1, 2, 0).numpy(), aspect="auto")
        strip.set(xticks=[], yticks=[])
        strip.set_frame_on(False)
        strip.text(-6, 0, low, ha="right", va="center", fontsize=9, color=_INK)
        strip.text(262, 0, high, ha="left", va="center", fontsize=9, color=_INK)


def save(picture: Figure | Tensor, path: str | Path, *, at_least: int = 0) -> None:
    """Write a figure, or an image `[C, H, W]`, to a file; its suffix names the format.

    An image is enlarged by a whole factor until each side has `at_least` pixels.

    Raises:
        InputError: the folder does not exist, or the suffix names no image format.
    """
    path = _in_a_folder(path)
    try:
        if isinstance(picture, Tensor):
            to_image(picture, at_least).save(path)
        else:
            picture.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.08)
    except ValueError as error:  # both libraries raise it before they open the file
        raise InputError(f"cannot write {path.name}: {path.suffix!r} names no image format, use .png") from error


def save_small(figure: Figure, path: str | Path, *, max_bytes: int = 60_000) -> None:
    """Write a figure as WebP for a web page, in the best of several sizes and qualities that fits into `max_bytes`.

    If none fits, the smallest is written.

    Raises:
        InputError: the folder does not exist.
    """
    from PIL import Image

    path = _in_a_folder(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, bbox_inches="tight", pad_inches=0.08)
    picture = Image.open(buffer).convert("RGB")
    for share, quality in ((1, 85), (1, 70), (1, 55), (1, 40), (0.75, 55), (0.75, 40), (0.5, 40), (0.5, 20)):
        packed = io.BytesIO()
        smaller = picture.resize((int(share * picture.width), int(share * picture.height))) if share < 1 else picture
        smaller.save(packed, "WEBP", quality=quality)
        if packed.tell() <= max_bytes:
            break
    path.write_bytes(packed.getvalue())


def _in_a_folder(path: str | Path) -> Path:
    """Return a path; raise InputError if its folder does not exist."""
    path = as_path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path.name}: the folder {path.parent} does not exist")
    return path
