"""Find the code to which a link of a page leads (used by generate.py, hooks.py and parts.py).

A link to code is `[words](../underfire/model/oracle.py "underfire.model.Oracle")`: a reader of the files finds the
code, and a reader of the site the API page of the name in quotes.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CODE_LINK = re.compile(r'\]\(\.\./(underfire/[\w/]+\.py) "([\w.]+)"\)')


def link_to(card: Any) -> str:
    """Return the target of a link to a method: its source on disk, and its page on the site."""
    module = card.function.__module__
    return f'{source_of(module)} "{module}.{card.function.__qualname__}"'


def source_of(module: str) -> str:
    """Return the path of the source of a module, seen from a page."""
    file = import_module(module).__file__ or ""
    return f"../{Path(file).resolve().relative_to(ROOT).as_posix()}"


def place_of(name: str) -> str:
    """Return the path of the file that defines the object `underfire.module.name`, seen from a page."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return source_of(getattr(found, "__module__", None) or found.__name__)
    raise ValueError(name)
