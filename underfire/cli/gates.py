"""`--fail-under NAME=VALUE`: compare figures of a run with limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underfire.cli.codes import FAILED_GATE, HELD, NOT_BELIEVED
from underfire.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from underfire.audit.gates import GateResult
    from underfire.audit.schema import AuditSpec
    from underfire.audit.standing import Standing
    from underfire.audit.summary import Findings
    from underfire.records import Interval


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
        InputError: `text` is not a name and a number in `[0, 1]`, or the run has no figure of that name.
    """
    name, _, value = text.rpartition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not name or not math.isfinite(limit):
        raise InputError(f"--fail-under must be NAME=VALUE, as in robust_accuracy=0.5, got {shown(text)}")
    if not 0 <= limit <= 1:
        meant = f"; {limit / 100:g}?" if 1 < limit <= 100 else ""
        raise InputError(f"--fail-under: {name} is a share, so its limit must be in [0, 1], got {limit:g}{meant}")
    if name not in names:
        raise InputError(f"--fail-under: the run has no figure {shown(name)}; {nearest(name, names)}")
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


def _figures(found: Findings) -> dict[str, Interval]:
    """Return the figures of `known_names` that have a result."""
    from underfire.audit.reading import largest

    known = {} if found.clean is None or found.answered else {"clean_accuracy": found.clean}
    if found.robust:
        known["robust_accuracy"] = min((left.robust for left in found.robust), key=lambda rate: rate.value)
    known |= {f"robust_accuracy/{result.label}": result.robust for result in largest(found.attacks)}
    known |= {f"map_iou/{s.label}/{s.interpreter}": s.iou for s in largest(found.shifts)}
    return known


def outcomes(found: Findings, gates: Sequence[Gate], *, confident: bool = False) -> list[GateResult]:
    """Return the outcomes of the gates of the spec and of `gates`.

    Args:
        found: the findings of the run.
        gates: the gates of the command line.
        confident: whether `gates` compare the lower ends of the 95 % intervals; otherwise they compare the estimates.
    """
    from underfire.audit.gates import decide, sound

    known, holds = _figures(found), sound(found.standing)
    mine = [decide(g.name, known.get(g.name), g.at_least, confident=confident, sound=holds) for g in gates]
    return [*found.gates, *mine]


def exit_code(results: Sequence[GateResult], standing: Standing) -> int:
    """Return the exit code: 3 the run is not finished or cannot be believed, 1 a gate failed, 0 otherwise."""
    from underfire.audit.gates import sound

    if not sound(standing):
        return NOT_BELIEVED
    return HELD if all(result.passed for result in results) else FAILED_GATE


def lines(results: Sequence[GateResult], standing: Standing) -> list[str]:
    """Return one line for each gate that does not hold, and before them why the run cannot be used."""
    from underfire.audit.gates import sound

    told = []
    if not sound(standing):
        means = "no gate holds" if results else "not finished, or not to be believed"
        told += [f"{means}: {reason}" for reason in [standing.headline, *standing.reasons] if reason]
    for result in results:
        if result.state == "unknown":
            told.append(f"gate failed: {result.name} is unknown, not {result.limit}")
        elif result.state == "missed":
            told.append(f"gate failed: {result.name} is {result.value:.4g} ({result.compared}), not {result.limit}")
    return told
