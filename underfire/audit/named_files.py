"""Find the files that the options of methods name, such as trained weights or the picture of a target map.

The results depend on the content of these files, so the keys of cells depend on it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from underfire.ascent.parts import parse_call
from underfire.audit.schema import AttackSpec, DefenseSpec, DetectorSpec, InterpreterSpec
from underfire.audit.values import file_digests
from underfire.errors import InputError


def with_files(
    options: Mapping[str, Any], *entries: AttackSpec | InterpreterSpec | DetectorSpec | DefenseSpec
) -> dict[str, Any]:
    """Return the options of a cell, and under `files` a SHA-256 of each file that an option of the methods names.

    An option names a file if it is a text that is the path of the file. The arguments of a part count too, as in
    `picture("arrow.png")`. If no option names a file, there is no entry `files`.

    Raises:
        DataError: a file cannot be read.
    """
    found = file_digests(text for entry in entries for text in _texts(entry.options))
    return {**options, "files": found} if found else dict(options)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in plain values, and the texts among the arguments of parts that are written as calls."""
    if isinstance(value, str):
        yield value
        if "(" in value:
            try:
                _, given, named = parse_call(value)
            except InputError:  # a text of another kind
                return
            yield from _texts([given, named])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
