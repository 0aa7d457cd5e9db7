"""Measures by name: which table a measure adds to, and how its parameters find their values.

The parameters of a measure are named from one vocabulary, `model, interpreter, x, x_adv, y, goal, logits, logits_adv,
m, n, mask`. A measure that sees both sides at once (`x` and `x_adv`, `logits` and `logits_adv`, or the maps `m` and
`n`) has one value per sample. Any other has two, one of the clean sample and one of the adversarial.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire.audit.schema import AuditSpec, MeasureSpec
from underfire.catalog import Card, cards, find
from underfire.errors import InputError

VERDICT = ("map_l1", "map_iou")
"""The measures that the verdict of a report rests on; they are computed whatever the spec asks for."""

_BOTH_SIDES = {"x_adv", "logits_adv", "n"}
_ASKS = {"model", "interpreter"}


def parameters(card: Card[Any]) -> tuple[str, ...]:
    """Return the names of the positional parameters of a measure that have no default, or are `goal`."""
    found = inspect.signature(card.function).parameters.values()
    named = [p for p in found if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return tuple(p.name for p in named if p.default is inspect.Parameter.empty or p.name == "goal")


def compares(card: Card[Any]) -> bool:
    """Return whether a measure sees the clean and the adversarial sample at once."""
    return bool(_BOTH_SIDES & set(parameters(card)))


def asks(card: Card[Any]) -> bool:
    """Return whether a measure asks the model, or an interpreter, and so takes time."""
    return bool(_ASKS & set(parameters(card)))


def usable(table: str = "") -> list[str]:
    """Return the names of the measures that an audit can compute, in one table, `"rows"` or `"maps"`, or in any."""
    wanted = (table,) if table else ("rows", "maps")
    return [card.name for card in cards("measure") if card.facts.table in wanted and not card.facts.whole]


def chosen(spec: AuditSpec) -> list[MeasureSpec]:
    """Return the measures that an audit computes: those of the spec, and those that the verdict rests on."""
    titles = [entry.title for entry in spec.measures]
    more = [MeasureSpec(name=name) for name in VERDICT if name not in titles]
    return [*spec.measures, *(more if spec.interpreters else [])]


def identity(entry: MeasureSpec) -> str:
    """Return the name of a measure with its options, without its label."""
    return f"{entry.name} {json.dumps(entry.options, sort_keys=True)}" if entry.options else entry.name


def bind(entry: MeasureSpec) -> Callable[[Mapping[str, Any]], Tensor]:
    """Return a function from values by name to the measure, `[B]`; nan for all if it needs a mask and there is none."""
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
        raise InputError(f"measure {card.name!r} must give one value per sample [{count}], got {tuple(found.shape)}")
    return found.double()
