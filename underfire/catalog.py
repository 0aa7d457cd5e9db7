"""The catalogue: every method with its facts, as data beside its code.

A method enters by the decorator `card`; modules that hold methods are named in the entry-point group `underfire`, the
core's own as well as a plugin's. Command-line choices, docs tables, report columns and contract tests are made from the
cards.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_type_hints

from underfire.errors import InputError, nearest

KINDS = ("attack", "interpreter", "detector", "defense", "training", "poisoning", "measure")
_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Card:
    """The facts about one method.

    Attributes:
        kind: one of `KINDS`.
        name: how the command line, a spec and a report call it.
        function: the method itself; calling the card calls it.
        paper: authors, title, venue and year of its source.
        modality: what it works on: `"image"`, `"tabular"`, `"text"`, or several.
        knowledge: what an attacker must have: `"white-box"`, `"black-box"`, ...; empty where that means nothing.
        norms: the norms it can bound or minimise, such as `("linf", "l2")`.
        facts: whatever else is known, by name (`goals`, `differentiable`, `random`, `atlas`, `higher_is_better`, ...).
            Of an attack, `minimal`: it looks for the smallest success; `universal`: one change serves the whole batch;
            `models`: the only kind of model that it takes; `quick`: options that make it short. Of an interpreter,
            `gives`: what it returns, `"map"` where nothing is said, or `"images"`, `"examples"`, `"rules"`;
            `per_pixel`: it asks the model once for every pixel.
        detailed: of an interpreter that can say how good its map is, `(model, x, y, **options)` -> the map, and figures
            `[B]` by name; None for the others.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    paper: str
    modality: tuple[str, ...] = ("image",)
    knowledge: str = ""
    norms: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    detailed: Callable[..., tuple[Any, dict[str, Any]]] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        return self.with_options(**kwargs)(*args)

    def with_options(self, **options: Any) -> Callable[..., Any]:
        """The method with its options bound, called with what is left; of one that is fitted, a new object."""
        return self.function(**options) if self.fitted else partial(self.function, **options)

    @property
    def fitted(self) -> bool:
        """Whether the method is a class whose objects are fitted to data before they are called."""
        return inspect.isclass(self.function)

    @property
    def hints(self) -> dict[str, Any]:
        """The types of the options, by name."""
        return get_type_hints(self.function.__init__ if self.fitted else self.function)

    @property
    def summary(self) -> str:
        """The first line of the method's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    @property
    def source(self) -> str:
        """The paper in short, such as `Croce and Hein 2020`.

        >>> Card("attack", "pgd", print, "Madry, Makelov and Vladu, Towards Deep Learning Models, ICLR 2018").source
        'Madry et al. 2018'
        """
        first, _, rest = self.paper.partition(",")
        year = re.search(r"(\d{4})\D*$", self.paper)
        several = " and " in rest and " and " not in first
        return " ".join(filter(None, (first + (" et al." if several else ""), year and year[1])))

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of the method, by name."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def as_dict(self) -> dict[str, Any]:
        """The card as plain values, for JSON and tables."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in self.facts.items()}
        return {
            "kind": self.kind,
            "name": self.name,
            "summary": self.summary,
            "paper": self.paper,
            "modality": list(self.modality),
            "knowledge": self.knowledge,
            "norms": list(self.norms),
            **facts,
        }


_CARDS: dict[tuple[str, str], Card] = {}


def card(
    kind: str,
    *,
    paper: str,
    name: str | None = None,
    modality: str | tuple[str, ...] = "image",
    knowledge: str = "",
    norms: tuple[str, ...] = (),
    detailed: Callable[..., tuple[Any, dict[str, Any]]] | None = None,
    **facts: Any,
) -> Callable[[_Method], _Method]:
    """Put the decorated method in the catalogue under its own name.

    Raises:
        InputError: the kind is unknown, or another method already has the name.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; {nearest(kind, KINDS)}")

    def enter(method: _Method) -> _Method:
        key = (kind, name or method.__name__)
        known = _CARDS.get(key)
        old = known.function if known else method
        if (old.__module__, old.__qualname__) != (method.__module__, method.__qualname__):
            raise InputError(f"two {kind}s are named {key[1]!r}: {old.__module__} and {method.__module__}")
        modalities = (modality,) if isinstance(modality, str) else modality
        _CARDS[key] = Card(*key, method, paper, modalities, knowledge, norms, facts, detailed)
        return method

    return enter


@cache
def _load() -> None:
    for door in entry_points(group="underfire"):
        door.load()


def cards(kind: str | None = None) -> Iterator[Card]:
    """Every card, or every card of one kind, sorted by kind and name."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; {nearest(kind, KINDS)}")
    _load()
    order = sorted(_CARDS, key=lambda key: (KINDS.index(key[0]), key[1]))
    return (_CARDS[key] for key in order if kind in (None, key[0]))


def find(kind: str, name: str) -> Card:
    """The card of one method; calling it calls the method.

    Raises:
        InputError: there is no such kind or name; the message suggests the nearest.
    """
    known = {c.name: c for c in cards(kind)}
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return known[name]


def facts_of(method: Callable[..., Any]) -> Mapping[str, Any]:
    """The facts on the card of a method passed in as a callable, through any `functools.partial`; else none."""
    while isinstance(method, partial):
        method = method.func
    if isinstance(method, Card):
        return method.facts
    return next((c.facts for c in _CARDS.values() if c.function in (method, type(method))), {})
