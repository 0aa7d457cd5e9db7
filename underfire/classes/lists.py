"""Read lists of classes: a `classes.json` of the user, and the 1,000 classes of ImageNet."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from underfire.errors import DataError

_LARGEST = 16 * 2**20  # bytes of a classes.json; the 21,841 classes of the whole ImageNet need 2 MB
_FORMS = 'a list of names, a list of {"synset": FOLDER, "name": CLASS}, or a mapping of numbers from 0 to names'


@cache
def imagenet() -> dict[str, str]:
    """Return the WordNet synset and the English name of the 1,000 classes of ILSVRC 2012, in their usual order."""
    lines = files("underfire.classes").joinpath("imagenet.txt").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def read_classes(path: Path) -> list[tuple[str, str]]:
    """Return the folder and the name of every class in a `classes.json`, in order; empty if there is no such file.

    The file is a list of names, a list of `{"synset": FOLDER, "name": CLASS}`, or a mapping of numbers from 0 to names
    or to pairs `[FOLDER, CLASS]`, as Keras and Hugging Face write it. Without a folder, the name is the folder too.

    Raises:
        DataError: the file is too large, is not JSON, or does not have one of these forms, or a folder occurs twice.
    """
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{str(path)!r} has more than the {_LARGEST >> 20} MB that a list of classes may have")
        found = [_entry(item) for item in _in_order(json.loads(path.read_text("utf-8")))]
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} must be {_FORMS}") from error
    folder, count = Counter(folder for folder, _ in found).most_common(1)[0]
    if count > 1:
        raise DataError(f"{str(path)!r} has the class {folder!r} twice")
    return found


def _in_order(content: Any) -> list[Any]:
    """Return the entries of a list, or those of a mapping from numbers in the order of the numbers."""
    if isinstance(content, dict):
        content = [content[str(i)] for i in range(len(content))]
    if not isinstance(content, list) or not content:
        raise TypeError(type(content).__name__)
    return content


def _entry(item: Any) -> tuple[str, str]:
    """Return the folder and the name that an entry states."""
    if isinstance(item, dict):
        item = item.get("synset", item["name"]), item["name"]
    folder, name = (item, item) if isinstance(item, str) else item
    if not isinstance(folder, str) or not isinstance(name, str):
        raise TypeError(item)
    return folder, name
