"""Read image files: folders with one folder of images for each class, and tables (CSV) of paths and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from underfire.classes import listing, read_classes
from underfire.data.columns import LABEL_COLUMNS, PATH_COLUMNS, column, label_column, numbered
from underfire.data.images import MAX_BYTES, OTHER_SUFFIXES, SUFFIXES, Reading, gather, read_file
from underfire.errors import DataError
from underfire.records import Batch

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_LISTED = "classes.json"


class ImageFiles:
    """Image files with their labels.

    Args:
        root: the folder that the names are relative to.
        images: the name and the label of every file; -1 where there is no label.
        labels: names of the classes, or None.
        reading: how images become tensors.
        notes: what a reader of the results must know, as sentences.
        masks: a folder that has a mask of the evidence for every image; a mask has the name of its image, with any
            suffix. None if there are no masks.

    Raises:
        DataError: an image has no mask.
    """

    def __init__(
        self,
        root: Path,
        images: Sequence[tuple[str, int]],
        labels: tuple[str, ...] | None,
        reading: Reading,
        notes: Sequence[str] = (),
        masks: Path | None = None,
    ) -> None:
        self.labels, self.notes = labels, tuple(notes)
        self._masks = {} if masks is None else _masks(masks, [name for name, _ in images])
        self.labelled = any(label != -1 for _, label in images)
        self._root, self._images, self._reading = root, images, reading

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: list[int]) -> Batch:
        """Return the images at `index`, `[B, C, H, W]`."""
        chosen = [self._images[i] for i in index]
        ids = tuple(name for name, _ in chosen)
        x = gather(ids, lambda i: read_file(self._root / ids[i], self._reading), self._reading)
        mask = None
        if self._masks:
            # Scale and crop each mask like its image, so that both stay aligned.
            grey = replace(self._reading, mode="L")
            mask = gather(ids, lambda i: read_file(self._masks[ids[i]], grey), grey) > 0.5
        return Batch(x, torch.tensor([label for _, label in chosen], dtype=torch.int64), ids, mask)


def _masks(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the mask file of every image, by the name of the image; both names agree without folders and suffixes.

    Raises:
        DataError: there is no such folder; an image has no mask, or several.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}, given as masks=FOLDER")
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(Path(file).stem, []).append(folder / file)
    found = {name: files.get(Path(name).stem, []) for name in names}
    for fault, wrong in (("no mask", lambda n: n == 0), ("several masks", lambda n: n > 1)):
        listed = [name for name, masks in found.items() if wrong(len(masks))]
        if listed:
            raise DataError(f"{len(listed)} of {len(names)} images have {fault} in {str(folder)!r}: {listing(listed)}")
    return {name: masks[0] for name, masks in found.items()}


def image_files(folder: Path) -> list[str]:
    """Return the names of the image files in a folder and its subfolders, relative to the folder and sorted.

    Files of formats that cannot be read, such as `.avif`, are included, so that an error can name them. Hidden files
    and folders (whose names begin with a dot) and the folder `__MACOSX` are left out. Links to folders are followed.

    Raises:
        DataError: a folder cannot be listed.
    """
    endings = (*SUFFIXES, *OTHER_SUFFIXES)
    return [file.as_posix() for file in sorted(_walk(folder)) if file.suffix.lower() in endings]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are not hidden, relative to it."""

    def fail(error: OSError) -> None:
        raise DataError(f"the folder {error.filename!r} cannot be listed: {error.strerror}")

    for name, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        place = Path(name)
        folders[:] = [entry for entry in folders if not _hidden(entry) and not _leads_back(place / entry, folder)]
        yield from ((place / entry).relative_to(folder) for entry in files if not _hidden(entry))


def _leads_back(place: Path, folder: Path) -> bool:
    """Return whether `place` is a link to a folder that contains it, so that following it would never end."""
    above = (parent for parent in place.parents if parent == folder or folder in parent.parents)
    return place.is_symlink() and os.path.realpath(place) in map(os.path.realpath, above)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def open_folder(folder: Path, reading: Reading, nearest_folder: bool = False, masks: Path | None = None) -> ImageFiles:
    """Open a folder with one subfolder of images for each class; the classes are the subfolders, sorted by name.

    If the folder contains a `classes.json` (see `underfire.classes.read_classes`), this file lists the classes in their
    order, including classes without a subfolder: a sample of ImageNet then keeps the numbers of the 1,000 classes. If
    the folder contains images but no subfolders, the images have no labels.

    Args:
        folder: the folder.
        reading: how images become tensors.
        nearest_folder: whether the class of an image is the innermost folder that contains it; otherwise the class is
            the subfolder of `folder` that contains it, at any depth.
        masks: the folder of masks of the evidence, or None; see `ImageFiles`.

    Raises:
        DataError: there is no such folder, no image in it, or a class folder that `classes.json` does not list.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}, given as folder:FOLDER")
    files = image_files(folder)
    if not files:
        kinds = Counter(file.suffix.lower() or "no ending" for file in _walk(folder))
        held = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common(5)) or "no file at all"
        raise DataError(
            f"{str(folder)!r} must hold class folders with images in them ({', '.join(SUFFIXES)}); it holds {held}"
        )
    loose = [file for file in files if "/" not in file]
    if len(loose) == len(files):
        return ImageFiles(folder, [(file, -1) for file in files], None, reading, masks=masks)
    # the class of every image
    inside = [file for file in files if "/" in file]
    first = [file.split("/")[0] for file in inside]
    owner = [file.split("/")[-2] for file in inside] if nearest_folder else first
    if not nearest_folder and {name.lower() for name in first} <= _SPLITS:
        raise DataError(f"{str(folder)!r} holds splits ({listing(sorted(set(first)))}), not classes; name one of them")
    empty = [] if nearest_folder else sorted(_class_folders(folder) - set(first))
    listed = read_classes(folder / _LISTED)
    keys = [key for key, _ in listed] or sorted({*owner, *empty})
    rank = {key: i for i, key in enumerate(keys)}
    if unknown := next((name for name in owner if name not in rank), None):
        raise DataError(f"folder {unknown!r} in {str(folder)!r} is not among the classes of its {_LISTED}")
    # notes on anything that a reader would not expect
    notes = []
    if loose:
        notes.append(f"{len(loose)} images beside the class folders belong to no class and are left out.")
    if empty:
        notes.append(f"Class folders without any image: {listing(empty)}.")
    if not nearest_folder and any(file.count("/") > 1 for file in inside):
        notes.append("Class folders hold folders; the class is the first folder (class=nearest takes the last).")
    if not listed and all(key.isdecimal() for key in keys) and keys != sorted(keys, key=int):
        notes.append("The class folders are numbers, and are sorted as text: '10' comes before '2'.")
    labels = tuple(name for _, name in listed) or tuple(keys)
    images = [(file, rank[name]) for file, name in zip(inside, owner, strict=True)]
    return ImageFiles(folder, images, labels, reading, notes, masks)


def _class_folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name)}


def open_csv(file: Path, reading: Reading, image: str | None = None, label: str | None = None) -> ImageFiles:
    """Open a table of comma-separated values with a column of paths, relative to the table, and a column of labels.

    The first line names the columns. If it begins with the path of a file instead, it is a row: the first column then
    holds the paths and the second the labels. Labels are class numbers or class names. Names are numbered in sorted
    order, or as a `classes.json` in the folder of the table lists them.

    Raises:
        DataError: the file cannot be read, a column is missing, rows differ in length, or there is no row.
    """
    header, rows = _read_csv(file)
    source = repr(str(file))
    paths = column(header, image, PATH_COLUMNS, "image", source)
    names = label_column(header, label, paths, source)
    places = [row[header.index(paths)] for row in rows]
    if names is None:
        return ImageFiles(file.parent, [(place, -1) for place in places], None, reading)
    texts = [row[header.index(names)] for row in rows]
    if "" in texts:
        raise DataError(f"{source} has no label in row {texts.index('') + 1}")
    numbers, labels = numbered(texts, read_classes(file.parent / _LISTED), source)
    return ImageFiles(file.parent, list(zip(places, numbers, strict=True)), labels, reading)


def _read_csv(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows that are not empty."""
    if not file.is_file():
        raise DataError(f"there is no file {str(file)!r}, given as csv:FILE")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"{str(file)!r} is larger than the {MAX_BYTES >> 20} MB that a table may have")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(file)!r} is not a table of comma-separated values in UTF-8: {error}") from error
    if rows and (file.parent / rows[0][0]).is_file():  # no header
        rest = [f"column {i}" for i in range(3, len(rows[0]) + 1)]
        rows.insert(0, [PATH_COLUMNS[0], LABEL_COLUMNS[0], *rest][: len(rows[0])])
    if len(rows) < 2:
        raise DataError(f"{str(file)!r} must have a first line that names the columns, such as path,label, and rows")
    header = [name.strip() for name in rows[0]]
    if odd := next((i for i, row in enumerate(rows) if len(row) != len(header)), None):
        raise DataError(f"{str(file)!r} has {len(header)} columns but {len(rows[odd])} in row {odd}")
    return header, rows[1:]
