"""Cards of methods: `card` puts a method into the catalogue, `cards` and `find` look it up."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from itertools import chain
from typing import Any, Generic, Literal, overload
from typing import TypeVar as _PlainTypeVar

from typing_extensions import TypeVar

from underfire.catalog.calls import with_checks
from underfire.catalog.composing import composed, made
from underfire.catalog.facts import (
    KINDS,
    AttackFacts,
    DefenseFacts,
    DetectorFacts,
    Facts,
    InterpreterFacts,
    MeasureFacts,
    PartFacts,
    TrainingFacts,
    check_kind,
    facts_for,
)
from underfire.catalog.options import check_options, hints_of, options_of
from underfire.errors import InputError, Unsupported, nearest, shown

_Method = _PlainTypeVar("_Method", bound=Callable[..., Any])
_Facts = _PlainTypeVar("_Facts", bound=Facts)
F = TypeVar("F", bound=Facts, default=Any)


@dataclass(frozen=True, repr=False)
class Card(Generic[F]):
    """A method with its facts. Calling the card calls the method.

    Attributes:
        kind: one of `KINDS`.
        name: the name of the method on the command line, in a spec and in a report.
        function: the method itself, a function or a class.
        paper: authors, title, venue and year of its source.
        facts: the facts of its kind, such as `AttackFacts`.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    paper: str
    facts: F

    def __post_init__(self) -> None:
        # `help`, `inspect.signature` and an editor show the method's own signature and text.
        for name, value in (
            ("__doc__", self.function.__doc__),
            ("__wrapped__", self.function),
            ("__signature__", _signature(self.function)),
        ):
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; if it is a class and `args` are given, make an object with the options and call that.

        Raises:
            Unsupported: an interpreter does not take the inputs of the model, which is the first argument.
        """
        domain = getattr(args[0], "domain", None) if args and self.kind == "interpreter" else None
        if isinstance(name := getattr(domain, "name", None), str):
            self.check_domain(name)
        if self.fitted and args:
            return self.function(**kwargs)(*args)
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        call = f"{self.kind} {self.name}{_short(_signature(self.function))}"
        return f"<{call}: {self.source}>" if self.paper else f"<{call}>"

    def with_options(self, **options: Any) -> Callable[..., Any]:
        """Return the method with its options bound; if it is a class, return a new object made with them."""
        return self.function(**options) if self.fitted else partial(self.function, **options)

    def check(self, options: Mapping[str, Any], *, path: str = "", elsewhere: Collection[str] = ()) -> dict[str, Any]:
        """Return `options`, checked and converted to the method's types: lists to tuples, `"8/255"` to a number.

        Args:
            options: values by name, as a file, the command line or a Python caller gives them.
            path: the prefix of option names in messages, such as `"attacks[0]."`.
            elsewhere: names that the caller handles itself: messages may suggest them, and `options` need not have
                them.

        Raises:
            InputError: an option is unknown, missing, a count below 1, or of another type.
        """
        return check_options(self.name, self.options, self.hints, options, path=path, elsewhere=elsewhere)

    def check_domain(self, domain: str) -> None:
        """Raise Unsupported if the method does not take the inputs of `domain`, given by its name."""
        if domain not in self.facts.domains:
            taken = " or ".join(self.facts.domains)
            raise Unsupported(f"{self.kind} {self.name!r} takes inputs of {taken}, and the model takes {domain}")

    @property
    def fitted(self) -> bool:
        """Return whether the method is a class whose objects are fitted to data before they are used."""
        return inspect.isclass(self.function)

    @property
    def hints(self) -> dict[str, Any]:
        """The types of the options, by name."""
        return hints_of(self.function)

    @property
    def summary(self) -> str:
        """The first line of the method's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]

    @property
    def source(self) -> str:
        """The papers in short, such as `Croce and Hein 2020`; a semicolon stands between two papers.

        >>> paper = "Madry, Makelov and Vladu, Towards Deep Learning Models, ICLR 2018; Lin et al., Nesterov, ICLR 2020"
        >>> Card("attack", "pgd", print, paper, AttackFacts()).source
        'Madry et al. 2018; Lin et al. 2020'
        """
        return "; ".join(map(in_short, self.paper.split("; ")))

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters of the method, by name; of a part, all its parameters."""
        return options_of(self.function, every=self.kind == "part")

    def as_dict(self) -> dict[str, Any]:
        """Return the card as plain values, for JSON and tables."""
        words = {"kind": self.kind, "name": self.name, "summary": self.summary, "paper": self.paper}
        return words | self.facts.as_dict()


def in_short(paper: str) -> str:
    """Return the first author of a paper, `et al.` if there are several, and its year."""
    first, _, rest = paper.partition(",")
    years = re.findall(r"\b(?:19|20)\d\d\b", paper)
    several = " and " in rest and " and " not in first and not first.endswith(" et al.")
    return " ".join([first + (" et al." if several else ""), *years[-1:]])


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a card; for a class: the arguments of its `__call__`, then those of its `__init__`."""
    own = inspect.signature(function)
    call = inspect.getattr_static(function, "__call__", None)
    if not inspect.isclass(function) or not inspect.isfunction(call):
        return own
    first = [p for p in list(inspect.signature(call).parameters.values())[1:] if p.default is p.empty]
    return own.replace(parameters=[*first, *own.parameters.values()])


def _short(signature: inspect.Signature) -> str:
    """Return a signature without its type hints."""
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


_FAMILIES = (
    "attacks",
    "defenses",
    "detectors",
    "interpreters",
    "measures",
    "training",
)  # the packages with the methods of underfire
_CARDS: dict[tuple[str, str], Card] = {}


def card(kind: str, *, paper: str = "", name: str | None = None, **facts: Any) -> Callable[[_Method], _Method]:
    """Put the decorated method in the catalogue under its own name, or under `name`.

    The arguments of an attack, an interpreter, a detector, a defence, a training and a measure are checked and
    converted in every call, see `checked_calls`.

    Args:
        kind: one of `KINDS`.
        paper: the source: authors, title, venue and year. Only a part may have none.
        name: the name in the catalogue, if it differs from that of the function.
        facts: the fields of the dataclass of its kind, such as those of `AttackFacts`.

    Raises:
        InputError: the kind or a fact is unknown, or another method already has the name.
    """
    check_kind(kind)

    def enter(method: _Method) -> _Method:
        key = (kind, name or method.__name__)
        if not paper and kind != "part":
            raise InputError(f"the card of {kind} {key[1]!r} names no paper")
        known = _CARDS.get(key)
        old = known.function if known else method
        if (old.__module__, old.__qualname__) != (method.__module__, method.__qualname__):
            raise InputError(f"two {kind}s are named {key[1]!r}: {old.__module__} and {method.__module__}")
        stated = facts_for(*key, facts)
        method = with_checks(kind, method, stated)
        _CARDS[key] = Card(*key, method, paper, stated)
        return method

    return enter


@cache
def _load() -> None:
    """Import the methods of underfire, and of plugins: the modules of the entry-point group `underfire`."""
    for family in _FAMILIES:
        import_module(f"underfire.{family}")
    for entry_point in entry_points(group="underfire"):
        entry_point.load()


@overload
def cards(kind: Literal["attack"]) -> Iterator[Card[AttackFacts]]: ...
@overload
def cards(kind: Literal["interpreter"]) -> Iterator[Card[InterpreterFacts]]: ...
@overload
def cards(kind: Literal["detector"]) -> Iterator[Card[DetectorFacts]]: ...
@overload
def cards(kind: Literal["defense"]) -> Iterator[Card[DefenseFacts]]: ...
@overload
def cards(kind: Literal["training"]) -> Iterator[Card[TrainingFacts]]: ...
@overload
def cards(kind: Literal["measure"]) -> Iterator[Card[MeasureFacts]]: ...
@overload
def cards(kind: Literal["part"]) -> Iterator[Card[PartFacts]]: ...
@overload
def cards(kind: str | None = None) -> Iterator[Card]: ...
def cards(kind: str | None = None) -> Iterator[Card[Any]]:
    """Return every card, or every card of one kind, sorted by kind and name."""
    if kind is not None:
        check_kind(kind)
    _load()
    wanted = [key for key in _CARDS if kind in (None, key[0])]
    return (_CARDS[key] for key in sorted(wanted, key=lambda key: (KINDS.index(key[0]), key[1])))


@overload
def find(kind: Literal["attack"], name: str) -> Card[AttackFacts]: ...
@overload
def find(kind: Literal["interpreter"], name: str) -> Card[InterpreterFacts]: ...
@overload
def find(kind: Literal["detector"], name: str) -> Card[DetectorFacts]: ...
@overload
def find(kind: Literal["defense"], name: str) -> Card[DefenseFacts]: ...
@overload
def find(kind: Literal["training"], name: str) -> Card[TrainingFacts]: ...
@overload
def find(kind: Literal["measure"], name: str) -> Card[MeasureFacts]: ...
@overload
def find(kind: Literal["part"], name: str) -> Card[PartFacts]: ...
@overload
def find(kind: str, name: str) -> Card: ...
def find(kind: str, name: str) -> Card[Any]:
    """Return the card of one method, also of one whose name is composed; calling the card calls the method.

    Raises:
        InputError: there is no such kind or name; the message suggests the nearest one.
    """
    check_kind(kind)
    _load()
    found = _CARDS.get((kind, str(name))) or composed(kind, str(name))
    if found is None:
        raise InputError(f"unknown {kind} {shown(name)}; {nearest(name, [c.name for c in cards(kind)])}")
    return found


def facts_of(method: Callable[..., Any], default: _Facts) -> _Facts:
    """Return the facts on the card behind a callable, or `default` without a card of its kind; see `card_behind`."""
    found = card_behind(method)
    return found.facts if found and isinstance(found.facts, type(default)) else default


def card_behind(method: Callable[..., Any]) -> Card[Any] | None:
    """Return the card of a method that is given with its options: in a partial, or as an object of a class."""
    while isinstance(method, partial):
        method = method.func
    return card_of(method) or card_of(type(method))


def card_of(method: Callable[..., Any]) -> Card[Any] | None:
    """Return the card of a method that is given as a callable, or None if it has no card."""
    known = chain(_CARDS.values(), made.values())
    return method if isinstance(method, Card) else next((c for c in known if c.function is method), None)
