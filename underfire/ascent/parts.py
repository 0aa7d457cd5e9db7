"""Make parts of a recipe from text, as a spec file or the command line gives it.

A part is written as a name (`momentum`), as a call with literal arguments (`momentum(0.9)`), or as a mapping
(`{name: momentum, decay: 0.9}`). A list of views or smoothings is applied from first to last, a list of objectives is
their sum. The text is parsed into a name and literals; nothing in it is evaluated.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any

from underfire.ascent import feature_terms, moves, objectives, step_rules, target_maps
from underfire.ascent.losses import as_objective
from underfire.catalog import Card, Converter, card, cards, converters, number, spell
from underfire.errors import InputError, nearest, shown, with_article
from underfire.gradients import backward, estimators, neighbourhoods, smoothing, views
from underfire.gradients.admixing import admix
from underfire.gradients.blocks import block_shuffle, structure_invariant
from underfire.gradients.softplus import softplus
from underfire.gradients.spectra import spectrum_simulation
from underfire.gradients.svre import svre

ROLES: dict[str, tuple[Any, ...]] = {
    "view": (
        admix,
        block_shuffle,
        views.input_diversity,
        neighbourhoods.neighbours,
        neighbourhoods.random_operators,
        views.scale_copies,
        spectrum_simulation,
        structure_invariant,
    ),
    "backward": (backward.skip_gradient,),
    "smoothing": (smoothing.normalise, smoothing.translation_kernel),
    "estimator": (
        estimators.exact,
        estimators.finite_differences,
        neighbourhoods.gradient_penalty,
        estimators.nes,
        softplus,
        estimators.spsa,
        svre,
        estimators.variance_tuned,
    ),
    "move": (moves.adam, moves.conjugate, moves.look_ahead, moves.momentum, moves.plain, moves.raw),
    "step_rule": (step_rules.halving, step_rules.sparse),
    "schedule": (step_rules.cosine, step_rules.linear, step_rules.staircase),
    "objective": (
        feature_terms.attention_distance,
        feature_terms.feature_distance,
        feature_terms.smooth_change,
        objectives.carlini,
        objectives.cross_entropy,
        objectives.dlr,
        objectives.log_odds,
        objectives.log_success,
        objectives.logit,
        objectives.margin,
    ),
    "target": (target_maps.benign, target_maps.other_class, target_maps.picture, target_maps.random_patch),
}
for _role, _parts in ROLES.items():
    for _part in _parts:
        card("part", role=_role)(_part)


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name, the arguments and the named arguments of a part such as `"scale_copies(copies=5)"`.

    Arguments are literals, or fractions of two numbers such as `8/255`.

    Raises:
        InputError: the text is neither a name nor a call with such arguments.
    """
    fault = f"{shown(text)} is not a part; write NAME or NAME(ARGUMENTS), such as 'scale_copies(5)'"
    if text.count("(") > text.count(")"):  # YAML ends an unquoted text at a comma, inside [...] and {...}
        fault += '; inside [...] put quotes around a part with a comma, such as ["input_diversity(0.5, 1.1)"]'
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(fault) from None
    if isinstance(tree, ast.Name):
        return tree.id, [], {}
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise InputError(fault)

    def literal(node: ast.expr) -> Any:
        """Return the value of a literal or a fraction."""
        try:
            return ast.literal_eval(node)
        except ValueError:
            written = number(ast.unparse(node))
            if isinstance(written, float):
                return written
            wrong = f"{shown(text)}: {shown(ast.unparse(node))}"
            raise InputError(f"{wrong} is not a number, a text in quotes, a list or a mapping") from None

    named = {}
    for keyword in tree.keywords:
        if keyword.arg is None or keyword.arg in named:
            raise InputError(fault)
        named[keyword.arg] = literal(keyword.value)
    return tree.func.id, [literal(node) for node in tree.args], named


def part(*roles: str, value: Any) -> Any:
    """Return the part that `value`, a text or a mapping, describes.

    Args:
        roles: the roles that the part may have, such as `"view"`.
        value: a name, a call with literal arguments, or a mapping with `name` and the options.

    Raises:
        InputError: there is no such part, or an argument is wrong; the message suggests the nearest name.
    """
    found, given = _look_up(*roles, value=value)
    return found.function(**found.check(given))


def spelling(*roles: str, value: Any) -> str:
    """Return a part as a call that names all its arguments, also those with default values.

    >>> spelling("move", value="momentum"), spelling("move", value={"name": "momentum", "decay": 1})
    ('momentum(decay=1.0)', 'momentum(decay=1.0)')
    """
    found, given = _look_up(*roles, value=value)
    checked, hints = found.check(given), found.hints
    written = []
    for name, option in found.options.items():
        plain = checked.get(name, option.default)
        if not isinstance(plain, (bool, int, float, str, type(None))):
            plain = spell(given.get(name), hints.get(name, Any))  # None for a default that no text can name
        if name in given or plain is not None:
            written.append(f"{name}={plain!r}")
    return f"{found.name}({', '.join(written)})"


def _look_up(*roles: str, value: Any) -> tuple[Card[Any], dict[str, Any]]:
    """Return the card of the part that `value` describes, and the arguments that `value` gives, by name."""
    if isinstance(value, Mapping):
        named: dict[str, Any] = dict(value)
        if not isinstance(name := named.pop("name", None), str):
            raise InputError(f"{with_article(roles[0])} written as a mapping needs a 'name', got {shown(dict(value))}")
        if not all(isinstance(key, str) for key in named):
            raise InputError(f"the options of {with_article(roles[0])} have texts as names, got {shown(dict(value))}")
        given: list[Any] = []
    elif isinstance(value, str):
        name, given, named = parse_call(value)
    else:
        raise InputError(f"{with_article(roles[0])} is a name, a call or a mapping, got {shown(value)}")
    known = {entry.name: entry for entry in cards("part") if entry.facts.role in roles}
    if name not in known:
        raise InputError(f"unknown {roles[0]} {shown(name)}; {nearest(name, known)}")
    found = known[name]
    places = [p.name for p in found.options.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(given) > len(places) or any(place in named for place in places[: len(given)]):
        raise InputError(f"{shown(value)}: {name} takes {', '.join(places) or 'no arguments'}")
    return found, {**dict(zip(places, given, strict=False)), **named}


def _joined(role: str, join: Any, value: Any) -> Any:
    """Return one part, or the parts of a list joined by `join`, which applies them from first to last."""
    return join(*(part(role, value=one) for one in value)) if isinstance(value, list) else part(role, value=value)


def _spell(*roles: str) -> Callable[[Any], Any]:
    """Return a function that spells one part, or a list of parts; a list of one is the part itself."""

    def spell_parts(value: Any) -> Any:
        if not isinstance(value, list):
            return spelling(*roles, value=value)
        return spelling(*roles, value=value[0]) if len(value) == 1 else [spelling(*roles, value=one) for one in value]

    return spell_parts


def _step_rule(value: Any) -> Any:
    """Return a step rule, or a schedule of step sizes."""
    return part("step_rule", "schedule", value=value)


def _objective(value: Any) -> Any:
    """Return the objective that `value` describes, or the objective made from a function; a list is their sum."""
    if callable(value):
        return as_objective(value)
    return _joined("objective", lambda *terms: reduce(add, terms), value)


def _short_target(value: Any) -> Any:
    """Return `{name: picture, file: "arrow.png"}` for `{picture: "arrow.png"}`, and any other value unchanged."""
    if not isinstance(value, Mapping) or len(value) != 1 or "name" in value:
        return value
    ((name, argument),) = value.items()
    first = [option for entry in cards("part") if entry.name == name for option in entry.options]
    return {"name": name, **({first[0]: argument} if first else {})}


converters |= {
    views.View: Converter(
        "the name of a view, or a list of them", partial(_joined, "view", views.compose), _spell("view")
    ),
    smoothing.Smoothing: Converter(
        "the name of a smoothing", partial(_joined, "smoothing", smoothing.chain), _spell("smoothing")
    ),
    estimators.Estimator: Converter(
        "the name of an estimator", lambda value: part("estimator", value=value), _spell("estimator")
    ),
    backward.Backward: Converter(
        "the name of a rule of the backward pass", lambda value: part("backward", value=value), _spell("backward")
    ),
    moves.Move: Converter("the name of a move", lambda value: part("move", value=value), _spell("move")),
    step_rules.StepRule: Converter("a number or the name of a step rule", _step_rule, _spell("step_rule", "schedule")),
    target_maps.TargetMap: Converter(
        "the name of a target map",
        lambda value: part("target", value=_short_target(value)),
        lambda value: spelling("target", value=_short_target(value)),
    ),
    objectives.Objective: Converter(
        "the name of an objective, a list of them or a function", _objective, _spell("objective")
    ),
}
