"""Short runs of a method on two images, from which follow the passes that a whole run takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

from underfire.audit.methods import values_of
from underfire.audit.schema import AttackSpec, DetectorSpec, InterpreterSpec, MeasureSpec
from underfire.audit.target import Target
from underfire.catalog.options import COUNTS
from underfire.errors import UnderfireError

Passes = tuple[float, float]
"""The numbers of forward and backward passes for one image."""

Entry = AttackSpec | InterpreterSpec | DetectorSpec | MeasureSpec
Run = Callable[..., Any]

_FACTORS = ("binary_search_steps", "restarts")  # options by which all passes are multiplied
_FEW = 4  # the largest count of an interpreter in a trial of an attack that is aimed at it


@dataclass(frozen=True)
class Trials:
    """The passes of a whole run of each method of a spec for one image, by the label of the method."""

    attacks: Mapping[str, Passes]
    interpreters: Mapping[str, Passes]
    detectors: Mapping[str, Passes]


def value_of(entry: Entry, name: str) -> Any:
    """Return the value of an option in an entry, or its default; 0 if the method has no such option."""
    default = entry.card.options[name].default if name in entry.card.options else 0
    return entry.options.get(name, default)


def short_options(entry: Entry) -> dict[str, Any]:
    """Return the options of a trial run: an attack takes one step, and no count is above its default."""
    method, short = entry.card, dict[str, Any]()
    for name in COUNTS:
        default = method.options[name].default if name in method.options else None
        if isinstance(default, int) and isinstance(given := entry.options.get(name), int):
            short |= {name: default} if given > default else {}
    if not isinstance(entry, AttackSpec):
        return short
    short |= {name: 1 for name in method.options if name.endswith("steps")}
    if isinstance(restarts := entry.options.get("restarts"), int):
        short["restarts"] = min(restarts, 2)  # some options do not go with restarts
    return short | dict(method.facts.quick)


def tried(
    target: Target,
    entry: Entry,
    run: Run,
    short: Mapping[str, Any] | None = None,
    *,
    inner: Mapping[str, int] | None = None,
) -> tuple[Any, Passes]:
    """Return the result of a trial run, and the passes for one image of the whole run.

    The passes of an attack, which is tried with one step, grow linearly with each count and with the product of two
    counts. So further runs follow with one count, and with two counts, larger than in the first; none if the trial has
    all counts as they are. Those of another method, which is tried with its default counts, grow in proportion to its
    steps and samples. A method that stops early takes fewer passes.

    Args:
        target: the model and the two images.
        entry: the method with its options.
        run: `(**options) -> result`, which runs the method with some of its options replaced.
        short: the options of the trial run; None takes those of `short_options`.
        inner: counts of the interpreter that an attack is aimed at, which are small in the trial, too, by the names
            that `run` knows them by.
    """
    short, inner = dict(short_options(entry) if short is None else short), dict(inner or {})
    few = {name: min(value, _FEW) for name, value in inner.items()}
    try:
        result, first = counted(target, run, short | few)
    except UnderfireError:  # the interpreter needs more samples or steps
        result, first = counted(target, run, short)
        inner, few = {}, {}
    queries = value_of(entry, "queries")
    if _is_number(queries) and queries:
        return result, (float(queries), 0.0)
    # counts that multiply all passes, and counts that are larger in the whole run
    numbers = {name: value for name in short if _is_number(value := value_of(entry, name)) and _is_number(short[name])}
    attack = isinstance(entry, AttackSpec)
    factors = _FACTORS if attack else (*_FACTORS, "steps", "samples")
    factor = prod(numbers[name] / short[name] for name in numbers if name in factors or isinstance(short[name], float))
    larger = {
        name: value
        for name, value in numbers.items()
        if attack and name not in factors and isinstance(value, int) and value > short[name]
    }
    larger |= {name: value for name, value in inner.items() if value > few[name]}
    if larger:
        _, first = counted(target, run, short | few)  # once more: the first call of a method may look at the model
    total = grown(target, run, first, short | few, larger, few)
    return result, (factor * total[0], factor * total[1])


def grown(
    target: Target,
    run: Run,
    first: Passes,
    short: Mapping[str, Any],
    whole: Mapping[str, int],
    more: Mapping[str, int],
) -> Passes:
    """Return the passes of a run with the counts `whole`, from runs in which one or two counts are a little larger.

    Args:
        target: the model and the two images.
        run: as in `tried`.
        first: the passes of the run with the options `short`.
        short: the options of that run.
        whole: the counts that are larger in the whole run, by name.
        more: by how much a count is made larger; 1 where it is not named.
    """
    gains: dict[tuple[str, ...], Passes] = {}
    for names in [*((name,) for name in whole), *combinations(whole, 2)]:
        try:
            _, found = counted(target, run, {**short, **{name: short[name] + more.get(name, 1) for name in names}})
        except UnderfireError:  # the method needs this count to be as it is, or larger by more
            continue
        known = [gains.get((name,), (0.0, 0.0)) for name in names] if len(names) > 1 else []
        gains[names] = _gain(found, [first, *known])
    times = {name: (value - short[name]) / more.get(name, 1) for name, value in whole.items()}
    forwards, backwards = (
        first[i] + sum(gain[i] * prod(times[name] for name in names) for names, gain in gains.items()) for i in (0, 1)
    )
    return forwards, backwards


def counted(target: Target, run: Run, options: Mapping[str, Any]) -> tuple[Any, Passes]:
    """Return the result of a run on the two images, and its passes for one of them."""
    with target.model.counting() as count:
        result = run(**options)
    images = len(target.preview.first)
    return result, (count.forwards / images, count.backwards / images)


def inner_counts(entry: InterpreterSpec) -> dict[str, int]:
    """Return the counts of an interpreter to which its passes are proportional: its samples and steps, by name."""
    found = {name: value_of(entry, name) for name in ("samples", "steps") if name in entry.card.options}
    if (unrolled := entry.card.facts.unrolled) is not None:
        found["steps"] = unrolled.steps(**values_of(entry))
    return {name: value for name, value in found.items() if isinstance(value, int) and value > 0}


def passes_of_map(target: Target, entry: InterpreterSpec, run: Run) -> Passes:
    """Return the passes of one map for one image, from runs with small counts.

    Args:
        target: the model and the two images.
        entry: the interpreter.
        run: `(**options) -> maps`, which runs it with some of its options replaced.
    """
    whole = inner_counts(entry)
    few = {name: min(value, _FEW) for name, value in whole.items()}
    try:
        _, first = counted(target, run, few)
    except UnderfireError:  # it needs more samples or steps
        return counted(target, run, {})[1]
    return grown(target, run, first, few, {name: value for name, value in whole.items() if value > few[name]}, few)


def _gain(found: Passes, before: list[Passes]) -> Passes:
    """Return the passes beyond those that were known before, at least 0."""
    forwards, backwards = (max(0.0, found[i] - sum(passes[i] for passes in before)) for i in (0, 1))
    return forwards, backwards


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
