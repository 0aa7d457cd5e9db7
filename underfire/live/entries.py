"""Turn methods of a Python caller into entries of a spec: names, mappings, partials and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from underfire.audit.values import Live
from underfire.catalog import AttackFacts, Card, InterpreterFacts, card_of
from underfire.domains import Domain
from underfire.errors import InputError, SpecError


def several(given: Any) -> Sequence[Any]:
    """Return one method or several, or None, as a list."""
    if given is None:
        return []
    return given if isinstance(given, (list, tuple)) else [given]


def method_entry(kind: str, given: Any, domain: Domain) -> dict[str, Any]:
    """Return a method, given in any form, as an entry of a spec.

    Raises:
        SpecError: it is not a method, or binds something that the audit sets itself.
    """
    options = dict(given) if isinstance(given, Mapping) else {}
    method = options.pop("name", None) if isinstance(given, Mapping) else given
    while isinstance(bound := method, partial):
        if bound.args:
            raise SpecError(f"{kind}: a partial may bind options by name only, got {bound.args!r:.80}")
        method, options = bound.func, {**bound.keywords, **options}
    if not isinstance(method, str) and not callable(method):
        raise SpecError(f"{kind}: a method is a name, a mapping with a name, or a function, got {given!r:.80}")
    if "generator" in options:
        raise SpecError(f"{kind}: the audit sets the generator; use seeds=[...] instead")
    if (aim := options.get("interpreter")) is not None:
        options["interpreter"] = method_entry("interpreter", aim, domain)
    known = method if isinstance(method, str) else getattr(card_of(method), "name", None)
    if known is not None:
        return {"name": known, **options}
    return (_own_attack if kind == "attack" else _own_interpreter)(method, options, domain)


def _own_attack(function: Callable[..., Any], options: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """Return a function of the caller as an entry of a spec; options that are not keys of an entry are bound to it."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = {key for key in ("goal", "norm", "eps", "generator") if takes_all or key in parameters}
    stated: dict[str, Any] = {key: options.pop(key) for key in ("label", "norm", "eps", "goal") if key in options}
    for key in ("norm", "eps"):
        if key in parameters and parameters[key].default not in (None, parameters[key].empty):
            stated.setdefault(key, parameters[key].default)
    name = _name(function)
    if "eps" not in stated:
        raise SpecError(f"attack {name!r} states no size; use {{'name': {name}, 'norm': 'linf', 'eps': '8/255'}}")
    norm = stated.setdefault("norm", "linf")
    bound = partial(function, **options) if options else function

    def attack(
        model: nn.Module, x: Any, y: Any, *, goal: Any = None, norm: Any = norm, eps: Any = None, generator: Any = None
    ) -> Any:
        offered = {"goal": goal, "norm": norm, "eps": eps, "generator": generator}
        return _tensor(name, bound(model, x, y, **{key: value for key, value in offered.items() if key in accepted}))

    facts = AttackFacts(
        domains=(domain.name,), norms=(norm,), goals=("untargeted", *(("targeted",) if "goal" in accepted else ()))
    )
    return {"name": name, "function": Live(Card("attack", name, attack, "", facts)), **stated}


def _own_interpreter(function: Callable[..., Any], options: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """Return a function of the caller as an entry of a spec, with its options bound."""
    name = _name(function)
    label = {"label": options.pop("label")} if "label" in options else {}
    bound = partial(function, **options) if options else function

    def interpreter(model: nn.Module, x: Any, y: Any) -> Any:
        return _tensor(name, bound(model, x, y))

    facts = InterpreterFacts(domains=(domain.name,), differentiable=True)
    return {"name": name, "function": Live(Card("interpreter", name, interpreter, "", facts)), **label}


def _tensor(name: str, returned: Any) -> Any:
    """Return the result of a function of the caller; raise InputError unless it is a tensor."""
    if not isinstance(returned, Tensor):
        raise InputError(f"{name} must return a tensor, got {type(returned).__name__}")
    return returned


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
