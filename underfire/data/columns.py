"""Find the columns of images and labels in a table, and turn labels that are text into class numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from underfire.classes import listing
from underfire.errors import DataError, nearest

IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "jpg", "png", "webp", "bytes", "content")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", *IMAGE_COLUMNS)
LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "category", "cls", "fine_label", "digit", "digits")
_WHOLE = re.compile(r"([-+]?\d{1,18})(?:\.0*)?")


def column(names: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, source: str) -> str:
    """Return the column `wanted`, or without it the first of the usual columns; case does not count for these.

    Args:
        names: all columns.
        wanted: the column that the user named by the option `what`, or None.
        usual: the names that are looked for otherwise, in lower case, the most usual first.
        what: `"image"` or `"label"`, which is also the name of the option.
        source: the file or the data set, for error messages.

    Raises:
        DataError: there is no such column, or it occurs twice.
    """
    lower = {name.lower(): name for name in reversed(names)}
    found = wanted if wanted is not None else next((lower[name] for name in usual if name in lower), None)
    if found is None:
        hint = f"{what}=COLUMN in the URI names another"
        more = "; labels=model takes the model's answers for labels" if what == "label" else ""
        raise DataError(f"{source} has no column {usual[0]} ({what}s), only {listing(names)}; {hint}{more}")
    if found not in names:
        raise DataError(f"{source} has no column {found!r}; {nearest(found, names)}")
    if list(names).count(found) > 1:
        raise DataError(f"{source} has the column {found!r} {list(names).count(found)} times")
    return found


def label_column(names: Sequence[str], wanted: str | None, image: str, source: str) -> str | None:
    """Return the column of labels, as in `column`; None if there is no other column than that of the images."""
    if wanted is None and set(names) == {image}:
        return None
    return column(names, wanted, LABEL_COLUMNS, "label", source)


def numbered(
    texts: Sequence[str], listed: Sequence[tuple[str, str]], source: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """Return class numbers for labels, and the names of the classes.

    Whole numbers stay as they are, and their classes have no names. Other labels are names: the classes are those
    `listed` (pairs of a key and a name), or if there are none all labels in alphabetical order.

    Raises:
        DataError: a label is not among the listed classes.
    """
    found = [_WHOLE.fullmatch(text.strip()) for text in texts]
    whole = [int(hit[1]) for hit in found if hit is not None]
    if len(whole) == len(texts):
        return whole, tuple(name for _, name in listed) or None
    keys = [key for key, _ in listed] or sorted(set(texts))
    rank = {key: i for i, key in enumerate(keys)}
    if unknown := next((text for text in texts if text not in rank), None):
        raise DataError(f"{source}: the label {unknown!r} is not among the classes of classes.json: {listing(keys)}")
    return [rank[text] for text in texts], tuple(name for _, name in listed) or tuple(keys)
