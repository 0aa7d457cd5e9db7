"""A spec against the catalogue: every method exists, takes its options, and its defaults are written out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from underfire.audit.spec import NEEDS, AttackSpec, AuditSpec, GateSpec, InterpreterSpec, number, where
from underfire.catalog import Card, cards, find
from underfire.errors import InputError, SpecError, nearest

STANDARD_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0, "l0": 24.0}
"""The sizes at which robustness on CIFAR-10 is usually compared, for attacks of minimum size, which have none."""

_AT_LEAST_ONE = ("steps", "restarts")
_OF_THE_SPEC = ("norm", "eps", "interpreter")
_PLAIN: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def complete(spec: AuditSpec, *, maps_only: bool = True) -> AuditSpec:
    """The spec with every norm, size and label written out; `maps_only` refuses interpreters that give something else.

    Raises:
        SpecError: a method, option, norm, label or gate is wrong; one line that names the key.
    """
    interpreters = [
        _interpreter(where("interpreters", i), entry, maps_only=maps_only) for i, entry in enumerate(spec.interpreters)
    ]
    _distinct("interpreters", [entry.title for entry in interpreters])
    known = {entry.title: entry for entry in interpreters}
    attacks = [_attack(where("attacks", i), entry, known) for i, entry in enumerate(spec.attacks)]
    _distinct("attacks", [entry.title for entry in attacks])
    if len(set(spec.seeds)) < len(spec.seeds):
        raise SpecError(f"'seeds' holds a seed twice: {spec.seeds}")
    done = spec.model_copy(update={"attacks": attacks, "interpreters": interpreters})
    for i, gate in enumerate(spec.gates):
        _gate(where("gates", i), gate, done)
    return done


def interpreter_of(entry: InterpreterSpec) -> Callable[..., Any]:
    """The interpreter `(model, x, classes) -> map` of an entry, its options bound."""
    return find("interpreter", entry.name).with_options(**values_of(entry))


def attack_of(entry: AttackSpec, eps: float) -> Callable[..., Any]:
    """The attack `(model, x, y, *, goal, generator) -> x'` of an entry at one size, its options bound."""
    method = find("attack", entry.name)
    given = {"norm": entry.norm, "eps": eps, **values_of(entry)}
    if entry.interpreter is not None:
        given["interpreter"] = interpreter_of(entry.interpreter)
    return partial(method.function, **{name: value for name, value in given.items() if name in method.options})


def values_of(entry: AttackSpec | InterpreterSpec) -> dict[str, Any]:
    """The options of an entry as the method takes them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.options.items()}


# --- entries ---------------------------------------------------------------------------------------------------------


def _card(path: str, kind: str, name: str) -> Card:
    try:
        return find(kind, name)
    except InputError as error:
        raise SpecError(f"{path!r}: {error}") from None


def _interpreter(path: str, entry: InterpreterSpec, *, maps_only: bool = True) -> InterpreterSpec:
    method = _card(f"{path}.name", "interpreter", entry.name)
    gives = method.facts.gives
    if maps_only and gives != "map":
        raise SpecError(f"{f'{path}.name'!r}: {entry.name} gives {gives}, and only maps can be used here")
    options = _options(path, method, entry)
    return InterpreterSpec(name=entry.name, label=entry.title, **options)


def _attack(path: str, entry: AttackSpec, known: dict[str, InterpreterSpec]) -> AttackSpec:
    method = _card(f"{path}.name", "attack", entry.name)
    options = _options(path, method, entry)
    norm = entry.norm or (_default(method, "norm") or method.facts.norms[0])
    if norm not in method.facts.norms:
        raise SpecError(f"{f'{path}.norm'!r}: {entry.name} has no norm {norm!r}; {nearest(norm, method.facts.norms)}")
    if "eps" not in method.options:
        raise SpecError(f"{f'{path}.name'!r}: {entry.name} has no eps, and an audit compares attacks at a given size")
    eps = entry.eps or [_default(method, "eps") or STANDARD_EPS[norm]]
    if len(set(eps)) < len(eps):
        raise SpecError(f"{f'{path}.eps'!r} holds a size twice: {eps}")
    goals = method.facts.goals
    if (wanted := "untargeted" if entry.goal == "untargeted" else "targeted") not in goals:
        raise SpecError(f"{f'{path}.goal'!r}: {entry.name} has no {wanted} mode, got {entry.goal!r}")
    target = _aim(f"{path}.interpreter", method, entry.interpreter, known)
    parts = [entry.name, target.title if target else "", norm, "" if entry.goal == "untargeted" else entry.goal]
    label = entry.label or " ".join(filter(None, parts))
    return AttackSpec(name=entry.name, label=label, norm=norm, eps=eps, goal=entry.goal, interpreter=target, **options)


def _aim(
    path: str, method: Card, entry: InterpreterSpec | None, known: dict[str, InterpreterSpec]
) -> InterpreterSpec | None:
    """The interpreter an attack is aimed at, complete; None for an attack that has none."""
    if "interpreter" not in method.options:
        if entry is not None:
            raise SpecError(f"{path!r}: {method.name} is not aimed at an explanation; adv2 is")
        return None
    usable = [card.name for card in cards("interpreter") if card.facts.differentiable]
    if entry is None:
        raise SpecError(f"{path!r} is missing: {method.name} is aimed at an explanation, one of {', '.join(usable)}")
    if not entry.options and not entry.label:
        named = [other for other in known.values() if other.name == entry.name]
        entry = known.get(entry.name) or (named[0] if len(named) == 1 else entry)
    entry = _interpreter(path, entry)
    if entry.name not in usable:
        why = f"{entry.name} is not differentiable, so {method.name} cannot attack it"
        raise SpecError(f"{path!r}: {why}; use one of {', '.join(usable)}")
    return entry


def _gate(path: str, gate: GateSpec, spec: AuditSpec) -> None:
    for key in ("attack", "norm", "eps", "interpreter"):
        value, needed = getattr(gate, key), key in NEEDS[gate.measure]
        if (value is not None) != needed:
            what = "is missing, the gate needs it" if needed else f"means nothing for {gate.measure}; leave it out"
            raise SpecError(f"{f'{path}.{key}'!r} {what}")
    by_label = {entry.title: entry for entry in spec.attacks}
    if gate.attack is not None and gate.attack not in by_label:
        hint = nearest(gate.attack, by_label)
        raise SpecError(f"{f'{path}.attack'!r}: no attack has the label {gate.attack!r}; {hint}")
    titles = [entry.title for entry in spec.interpreters]
    if gate.interpreter is not None and gate.interpreter not in titles:
        hint = nearest(gate.interpreter, titles)
        raise SpecError(f"{f'{path}.interpreter'!r}: no interpreter has the label {gate.interpreter!r}; {hint}")
    entries = [by_label[gate.attack]] if gate.attack else [entry for entry in spec.attacks if entry.norm == gate.norm]
    sizes = sorted({size for entry in entries for size in entry.eps})
    if gate.norm is not None and not entries:
        raise SpecError(f"{f'{path}.norm'!r}: no attack has norm {gate.norm!r}")
    if gate.eps is not None and gate.eps not in sizes:
        choices = ", ".join(f"{size:g}" for size in sizes)
        raise SpecError(f"{f'{path}.eps'!r}: {gate.eps:g} is not attacked; choices: {choices}")


def _distinct(path: str, labels: Sequence[str]) -> None:
    for i, label in enumerate(labels):
        if label in labels[:i]:
            other = f"{path}[{labels.index(label)}]"
            raise SpecError(f"{f'{path}[{i}].label'!r}: {label!r} is taken by {other}; give one another label")


# --- options ---------------------------------------------------------------------------------------------------------


def _default(method: Card, name: str) -> Any:
    return method.options[name].default if name in method.options else None


def _options(path: str, method: Card, entry: AttackSpec | InterpreterSpec) -> dict[str, Any]:
    """The options of an entry, numbers as numbers, each one that the method has and of its type."""
    hints = method.hints
    taken = type(entry).model_fields  # what has a place of its own in an entry is no option
    # What needs a tensor or a function cannot be written in a file.
    settable = {n: h for n in method.options if n not in taken and (h := hints.get(n)) and any(_said(h))}
    options = {}
    for name, value in entry.options.items():
        key = f"{path}.{name}"
        if name not in settable:
            fields = [f for f in taken if f not in _OF_THE_SPEC or f in method.options]
            raise SpecError(f"unknown key {key!r}; {nearest(name, [*settable, *fields])}")
        given, value = value, value if _fits(value, settable[name]) else number(value)
        if not _fits(value, settable[name]):
            raise SpecError(f"{key!r} should be {' or '.join(_said(settable[name]))}, got {given!r}")
        if name in _AT_LEAST_ONE and value is not None and value < 1:
            raise SpecError(f"{key!r} should be at least 1, got {value}")
        options[name] = value
    for name, parameter in method.options.items():
        if name in settable and parameter.default is inspect.Parameter.empty and name not in options:
            raise SpecError(f"{f'{path}.{name}'!r} is missing: {method.name} needs it")
    return options


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _alternatives(part)
    else:
        yield hint


def _said(hint: Any) -> Iterator[str]:
    """How a reader would be told what values a type has, of those that a file can hold."""
    for part in _alternatives(hint):
        if part in _PLAIN:
            yield _PLAIN[part]
        elif get_origin(part) is Literal:
            yield from (repr(choice) for choice in get_args(part))
        elif get_origin(part) is tuple:
            yield "a list" if get_args(part)[-1] is ... else f"a list of {len(get_args(part))}"


def _fits(value: Any, hint: Any) -> bool:
    for part in _alternatives(hint):
        if part is float:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif part is int:
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif get_origin(part) is Literal:
            fits = value in get_args(part)
        elif get_origin(part) is tuple:
            kinds = get_args(part)
            if kinds[-1] is ... and isinstance(value, list):
                kinds = kinds[:1] * len(value)
            fits = isinstance(value, list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
        else:
            fits = part in (bool, str, type(None)) and isinstance(value, part)
        if fits:
            return True
    return False
