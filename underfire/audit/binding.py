"""The measures of an audit: which of them an audit can compute, and how their parameters get their values.

The parameters of a measure are named from one vocabulary, `model, interpreter, x, x_adv, y, goal, logits, logits_adv,
m, n, mask`. A measure that compares the two sides (`x` and `x_adv`, `logits` and `logits_adv`, or the maps `m` and
`n`) has one value per sample. Any other measure has two, one for the clean and one for the adversarial sample.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire.audit.schema import AuditSpec, InterpreterSpec, MeasureSpec
from underfire.catalog import Card, cards, find
from underfire.errors import InputError

VERDICT = ("map_l1", "map_iou")
"""The measures that the verdict of a report needs; they are always computed."""

CHANGE, BOUND = "map_change", "map_change_bound"
"""The measures that every map of a path method has: its change, and the least change that is possible."""

RESERVED = (*VERDICT, "map_l2", CHANGE, BOUND)
"""The labels that mean the measure of the same name without options, for the report and the tables of the ledger."""

_FILLS: dict[str, str | float] = {"black": "black", "white": 1.0, "mean": "mean", "blur": "blur"}
_BOTH_SIDES = {"x_adv", "logits_adv", "n"}  # only a comparison has one of these
_MODEL_ARGUMENTS = {"model", "interpreter"}


def parameters(card: Card[Any]) -> tuple[str, ...]:
    """Return the names of the positional parameters of a measure that have no default, and of `goal`."""
    found = inspect.signature(card.function).parameters.values()
    named = [p for p in found if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return tuple(p.name for p in named if p.default is inspect.Parameter.empty or p.name == "goal")


def compares(card: Card[Any]) -> bool:
    """Return whether a measure compares the clean with the adversarial sample."""
    return bool(_BOTH_SIDES & set(parameters(card)))


def calls_model(card: Card[Any]) -> bool:
    """Return whether a measure calls the model or an interpreter, and so takes time."""
    return bool(_MODEL_ARGUMENTS & set(parameters(card)))


def usable(table: str = "") -> list[str]:
    """Return the names of the measures that an audit can compute, of one table (`"rows"` or `"maps"`) or of both."""
    wanted = (table,) if table else ("rows", "maps")
    return [card.name for card in cards("measure") if card.facts.table in wanted and not card.facts.whole]


def chosen(spec: AuditSpec) -> list[MeasureSpec]:
    """Return the measures that an audit computes: those of the spec, and with interpreters those in `VERDICT`."""
    titles = [entry.title for entry in spec.measures]
    more = [MeasureSpec(name=name) for name in VERDICT if name not in titles]
    return [*spec.measures, *(more if spec.interpreters else [])]


def bounded(entry: InterpreterSpec) -> list[MeasureSpec]:
    """Return the measures in `CHANGE, BOUND` for an interpreter whose maps are complete, and none for any other.

    The bound is of the logit of a class and of one baseline with a name: a neuron or several baselines have none.
    """
    baseline = entry.options.get("baseline", "black")
    known = isinstance(baseline, str) and baseline in _FILLS
    with suppress(InputError):  # a function of a Python session that has ended has no card
        known = known and entry.card.facts.complete
    if not known or "function" in entry.options or entry.options.get("neuron"):
        return []
    fill: dict[str, Any] = {} if baseline == "black" else {"baseline": _FILLS[baseline]}
    return [MeasureSpec(name=CHANGE), MeasureSpec(name=BOUND, **fill)]


def measured(spec: AuditSpec) -> list[MeasureSpec]:
    """Return all measures of an audit, each once: the chosen ones, and those of interpreters with a bound."""
    more = [measure for entry in spec.interpreters for measure in bounded(entry)]
    return list({(identity(entry), entry.title): entry for entry in [*chosen(spec), *more]}.values())


def identity(entry: MeasureSpec) -> str:
    """Return the name of a measure with its options but without its label, as its results are stored."""
    return f"{entry.name} {json.dumps(entry.options, sort_keys=True)}" if entry.options else entry.name


def bind(entry: MeasureSpec) -> Callable[[Mapping[str, Any]], Tensor]:
    """Return a function that takes values by name and returns the measure, float64 `[B]`.

    A measure that needs a mask is nan for all samples if the mask is None.
    """
    card = find("measure", entry.name)
    names = parameters(card)
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.options.items()}
    return partial(_call, card, names, options)


def _call(card: Card[Any], names: tuple[str, ...], options: Mapping[str, Any], values: Mapping[str, Any]) -> Tensor:
    count = len(values["x"])
    if "mask" in names and values["mask"] is None:
        return torch.full((count,), torch.nan)
    found = torch.as_tensor(card.function(*(values[name] for name in names), **options)).detach()
    if found.shape != (count,):
        raise InputError(f"measure {card.name!r} must return one value per sample [{count}], got {tuple(found.shape)}")
    return found.double()
