"""Check the values of options against the type hints of a signature, and convert values that come from a file.

A file can hold booleans, numbers, texts, lists and mappings. A list becomes a tuple, and a text such as `"8/255"`
becomes a float if the hint is a number. Objects that a Python caller passes, such as a tensor or a function, are
accepted if the hint names their type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, isclass, signature
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from underfire.errors import InputError, nearest, shown, with_article

_FRACTION = re.compile(r"\s*([-+]?[\d.]+)\s*/\s*([\d.]+)\s*")
_PLAIN: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_MISFIT = object()

#: Options that are counts, and must be at least 1.
COUNTS = ("steps", "restarts", "queries", "samples", "binary_search_steps", "chunk", "k", "segments")


@dataclass(frozen=True)
class Converter:
    """A rule that makes an option of one type from a value in a file.

    Attributes:
        said: what the file may hold, in words for error messages, such as `"the name of a view"`.
        convert: makes the option from a text, a mapping, a list or a function; raises InputError if it cannot.
        spell: returns the canonical spelling of such a value: the same for all values that make the same option.
    """

    said: str
    convert: Callable[[Any], Any]
    spell: Callable[[Any], Any] = lambda value: value


#: Converters by type hint. A package whose types appear in signatures, such as the parts of a recipe, adds its own.
converters: dict[Any, Converter] = {}


def number(value: Any) -> Any:
    """Return `value` as a float if it reads as one (`"8/255"`, `"1e-3"`, `2`), and anything else unchanged.

    >>> number("51/255")
    0.2
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        fraction = _FRACTION.fullmatch(value) if isinstance(value, str) else None
        return float(fraction[1]) / float(fraction[2]) if fraction else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        return value


@lru_cache(maxsize=4096)
def options_of(function: Callable[..., Any], *, every: bool = False) -> dict[str, Parameter]:
    """Return the keyword-only parameters of a function or class by name, or with `every` all; do not change them."""
    parameters = signature(function).parameters.values()
    return {p.name: p for p in parameters if every or p.kind is p.KEYWORD_ONLY}


@lru_cache(maxsize=4096)
def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters of a function, or of an object of a class, by name; do not change them."""
    return get_type_hints(function.__init__ if isclass(function) else function)


def check_options(
    method: str,
    parameters: Mapping[str, Parameter],
    hints: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    path: str = "",
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """Return `options`, checked and converted to the types that the method takes.

    Args:
        method: the name of the method, for messages.
        parameters: the parameters that `options` may set, by name.
        hints: the types of the parameters, by name.
        options: the values, as a file or a Python caller gives them.
        path: the prefix of option names in messages, such as `"attacks[0]."`.
        elsewhere: names that the caller handles itself: messages may suggest them, and `options` need not have them.

    Raises:
        InputError: an option is unknown, missing, a count below 1, or of another type.
    """
    checked = {}
    for name, value in options.items():
        key = f"{path}{name}"
        if name not in parameters:
            raise InputError(f"unknown key {shown(key)}; {nearest(str(name), {*parameters, *elsewhere})}")
        checked[name] = convert(key, value, hints.get(name, Any))
        if name in COUNTS and isinstance(checked[name], int) and checked[name] < 1:
            raise InputError(f"{key!r} should be at least 1, got {shown(value)}")
    for name, parameter in parameters.items():
        if parameter.default is Parameter.empty and name not in {*options, *elsewhere}:
            raise InputError(f"{f'{path}{name}'!r} is missing: {method} needs it")
    return checked


def convert(key: str, value: Any, hint: Any) -> Any:
    """Return `value`, converted to one of the types of `hint`.

    Raises:
        InputError: `value` fits none of the types; the message begins with `key`.
    """
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(f"{key!r} should be a whole number of at most 64 bits, got {shown(value)}")
    alternatives = list(_alternatives(hint))
    for candidate in (value, number(value)):
        for part in alternatives:
            converted = _as(candidate, part)
            if converted is not _MISFIT:
                return converted
    for part in alternatives:
        if (converter := _converter(part)) is not None and (isinstance(value, (str, Mapping, list)) or callable(value)):
            try:
                return converter.convert(value)
            except InputError as error:
                raise InputError(f"{key!r}: {error}") from None
    raise InputError(f"{key!r} should be {' or '.join(dict.fromkeys(_said(alternatives)))}, got {shown(value)}")


def spell(value: Any, hint: Any) -> Any:
    """Return the canonical spelling of a value from which `convert` makes an object; any other value unchanged."""
    if not isinstance(value, (str, Mapping, list)):
        return value
    found = (_converter(part) for part in _alternatives(hint))
    return next((converter.spell(value) for converter in found if converter is not None), value)


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, or the hint itself."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _alternatives(part)
    else:
        yield type(None) if hint is None else hint


def _converter(hint: Any) -> Converter | None:
    """Return the converter of a hint, or None if it has none."""
    try:
        return converters.get(hint)
    except TypeError:  # a hint that cannot be hashed
        return None


def _said(alternatives: Sequence[Any]) -> list[str]:
    """Return descriptions of what a file may hold for these types, or their names if a file can hold none of them."""
    writable: list[str] = []
    objects: list[str] = []
    for part in alternatives:
        if part in _PLAIN:
            writable.append(_PLAIN[part])
        elif (converter := _converter(part)) is not None:
            writable.append(converter.said)
        elif get_origin(part) is Literal:
            writable += [repr(choice) for choice in get_args(part)]
        elif get_origin(part) is tuple:
            kinds = get_args(part)
            choices = " or ".join(map(repr, get_args(kinds[0]))) if get_origin(kinds[0]) is Literal else ""
            writable.append("a list" + (f" of {len(kinds)}" if kinds[-1] is not ... else choices and f" of {choices}"))
        elif get_origin(part) in (Sequence, list):
            writable.append("a list")
        elif get_origin(part) is Mapping:
            writable.append("a mapping")
        elif part is not type(None):
            objects.append(
                "a function" if get_origin(part) is Callable else with_article(getattr(part, "__name__", str(part)))
            )
    return writable or objects


def _as(value: Any, hint: Any) -> Any:
    """Return `value` converted to `hint`, which is not a union, or `_MISFIT` if it does not fit."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if hint is float:
        given = number(value) if isinstance(value, (int, float)) else None
        return given if isinstance(given, float) and math.isfinite(given) else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    if origin is Literal:
        same = (choice for choice in get_args(hint) if choice == value and type(choice) is type(value))
        return next(same, _MISFIT)
    if origin in (tuple, list, Sequence):
        return _as_tuple(value, get_args(hint), exact=origin is tuple and get_args(hint)[-1] is not ...)
    if origin is Callable:
        return value if callable(value) else _MISFIT
    try:
        return value if isinstance(value, origin or hint) else _MISFIT
    except TypeError:  # a protocol that isinstance refuses
        return value if callable(value) else _MISFIT


def _as_tuple(value: Any, kinds: tuple[Any, ...], *, exact: bool) -> Any:
    """Return a list or tuple as a tuple with every item converted to its type, or `_MISFIT` if one does not fit."""
    if not isinstance(value, (list, tuple)) or (exact and len(value) != len(kinds)):
        return _MISFIT
    items = []
    for item, kind in zip(value, kinds if exact else kinds[:1] * len(value), strict=True):
        try:
            items.append(convert("", item, kind))
        except InputError:
            return _MISFIT
    return tuple(items)
