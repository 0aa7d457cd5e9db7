"""The methods of a run on the page: what each one does, its papers, its ATLAS technique and its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from underfire.audit.schema import AuditSpec
from underfire.catalog import Card, find
from underfire.errors import InputError

_ATLAS = "https://atlas.mitre.org/techniques/"
_PAPERS = "https://scholar.google.com/scholar?q="


@dataclass(frozen=True)
class Method:
    """An attack or an interpreter of the spec.

    Attributes:
        anchor: the id of its row on the page.
        kind: `"attack"` or `"interpreter"`.
        name: its name in the catalogue.
        labels: its labels in the spec.
        about: one sentence that says what it does.
        papers: its sources: authors, title, venue and year, each with the address of a search for it.
        atlas: its MITRE ATLAS technique; empty if it has none.
        technique: the address of the technique; empty if it has none.
    """

    anchor: str
    kind: str
    name: str
    labels: tuple[str, ...]
    about: str
    papers: tuple[tuple[str, str], ...]
    atlas: str
    technique: str


def methods(spec: AuditSpec) -> list[Method]:
    """Return the attacks and the interpreters of a spec that have a card, each once."""
    labels: dict[tuple[str, str], list[str]] = {}
    for kind, entries in (("attack", spec.attacks), ("interpreter", spec.interpreters)):
        for entry in entries:
            labels.setdefault((kind, str(entry.name)), []).append(entry.title)
    return [
        _method(kind, name, tuple(dict.fromkeys(titles)), card)
        for (kind, name), titles in labels.items()
        if (card := _card(kind, name)) is not None
    ]


def by_label(found: list[Method]) -> Mapping[str, Method]:
    """Return the method of every label of an attack."""
    return {label: method for method in found if method.kind == "attack" for label in method.labels}


def _card(kind: str, name: str) -> Card[Any] | None:
    """Return the card of a method; None for a function of a Python caller."""
    try:
        return find(kind, name)
    except InputError:
        return None


def _method(kind: str, name: str, labels: tuple[str, ...], card: Card[Any]) -> Method:
    atlas = getattr(card.facts, "atlas", "")
    papers = tuple((paper, _PAPERS + quote_plus(paper)) for paper in card.paper.split("; ") if paper)
    about = card.summary.replace("`", "")
    return Method(f"{kind}-{name}", kind, name, labels, about, papers, atlas, atlas and _ATLAS + atlas)
