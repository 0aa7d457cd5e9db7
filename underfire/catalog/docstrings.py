"""The meanings of options: from the docstring of a method, or else from the vocabulary."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from underfire.catalog.registry import Card

_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


@cache
def vocabulary() -> dict[str, str]:
    """Return the meaning of every argument that several methods share, by name."""
    text = files("underfire.catalog").joinpath("vocabulary.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \| [^|]*\|$", text.replace("\\|", "/"), re.MULTILINE))


def arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Return the texts of the section `Args` of a docstring, or `Attributes` of one without it, by name.

    >>> arguments(arguments)
    {}
    """
    text = inspect.getdoc(function) or ""
    title = "Args" if "\nArgs:\n" in text and not is_dataclass(function) else "Attributes"
    section = text.partition(f"\n{title}:\n")[2]
    meanings: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1]
            meanings[name] = entry[2]
        elif not line.startswith("     "):  # the section ends
            break
        elif name:
            meanings[name] += " " + line.strip()
    return meanings


def cited(function: Callable[..., Any]) -> str:
    """Return the paper that the docstring of a function gives as its source, without a full stop; empty without one.

    >>> cited(cited)
    ''
    """
    found = re.search(r"^Source: (.+?)\.?\s*(?:\n\n|\Z)", inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def meanings(card: Card[Any]) -> dict[str, str]:
    """Return the meaning of every option of a method, by name: from its own docstring, or from the vocabulary."""
    own = arguments(card.function) | (arguments(card.function.__init__) if card.fitted else {})
    return {name: own.get(name) or vocabulary().get(name, "") for name in card.options}
