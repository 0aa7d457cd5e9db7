"""`--fail-under NAME=VALUE`: compare figures of a run with limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underfire.errors import InputError, nearest

if TYPE_CHECKING:
    from underfire.audit.schema import AuditSpec
    from underfire.audit.summary import Findings


@dataclass(frozen=True)
class Gate:
    """A figure that must not be lower than `at_least`."""

    name: str
    at_least: float


def parse(text: str, names: Sequence[str]) -> Gate:
    """Return the gate that `NAME=VALUE` states; its name must be one of `names`.

    >>> parse("robust_accuracy=0.5", ["robust_accuracy"])
    Gate(name='robust_accuracy', at_least=0.5)

    Raises:
        InputError: `text` is not a name and a finite number, or the run has no figure of that name.
    """
    name, _, value = text.rpartition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not name or not math.isfinite(limit):
        raise InputError(f"--fail-under must be NAME=VALUE, as in robust_accuracy=0.5, got {text!r}")
    if name not in names:
        raise InputError(f"--fail-under: the run has no figure {name!r}; {nearest(name, names)}")
    return Gate(name, limit)


def known_names(spec: AuditSpec) -> list[str]:
    """Return the names of all figures that a run of this spec has.

    They are `clean_accuracy`; `robust_accuracy`, the lowest accuracy under all attacks of one norm and size together;
    and for each attack at its largest size `robust_accuracy/ATTACK` and `map_iou/ATTACK/INTERPRETER`.
    """
    maps = [f"{attack.title}/{interpreter.title}" for attack in spec.attacks for interpreter in spec.interpreters]
    return [
        "clean_accuracy",
        "robust_accuracy",
        *(f"robust_accuracy/{attack.title}" for attack in spec.attacks),
        *(f"map_iou/{name}" for name in maps),
    ]


def _figures(found: Findings) -> dict[str, float]:
    """Return the figures of `known_names` that have a result."""
    from underfire.audit.reading import largest

    known = {} if found.clean is None else {"clean_accuracy": found.clean.value}
    if found.robust:
        known["robust_accuracy"] = min(left.robust.value for left in found.robust)
    known |= {f"robust_accuracy/{result.label}": result.robust.value for result in largest(found.attacks)}
    known |= {f"map_iou/{s.label}/{s.interpreter}": s.iou.value for s in largest(found.shifts)}
    return known


def failures(found: Findings, gates: Sequence[Gate]) -> list[str]:
    """Return one line for each failed gate of the spec and of `gates`; an unknown figure fails."""
    known = _figures(found)
    outcomes = [(gate.name, gate.value, gate.at_least) for gate in found.gates]
    outcomes += [(gate.name, known.get(gate.name), gate.at_least) for gate in gates]
    return [
        f"{name} is {'unknown' if value is None or math.isnan(value) else f'{value:.4g}'}, under {limit:g}"
        for name, value, limit in outcomes
        if value is None or not value >= limit
    ]
