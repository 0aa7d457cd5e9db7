"""`--fail-under NAME=VALUE` and `--fail-over NAME=VALUE`: gates of the command line, each of which is one of a spec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underfire.cli.codes import FAILED_GATE, HELD, NOT_BELIEVED
from underfire.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from underfire.audit.gates import GateResult
    from underfire.audit.schema import AuditSpec, GateSpec
    from underfire.audit.standing import Standing
    from underfire.audit.summary import Findings

Limits = tuple[tuple[str, ...], tuple[str, ...]]
"""The texts of `--fail-under` and of `--fail-over`."""

_FLAGS = {"at_least": "--fail-under", "at_most": "--fail-over"}


@dataclass(frozen=True)
class Gate:
    """A gate of the command line: its name there, and the gate of a spec that it stands for."""

    name: str
    spec: GateSpec


def parse(limits: Limits, spec: AuditSpec) -> list[Gate]:
    """Return the gates that texts `NAME=VALUE` state.

    Args:
        limits: the texts of both options.
        spec: the spec of the run, which determines the names (`known`).

    Raises:
        InputError: a text is not a name and a number in `[0, 1]`, the run has no figure of that name, or the figure
            belongs to the other option.
    """
    texts = zip(_FLAGS, limits, strict=True)
    return [_parsed(text, key, spec) for key, several in texts for text in several]


def _parsed(text: str, key: str, spec: AuditSpec) -> Gate:
    """Return one gate; `key` is the limit that its option states, `"at_least"` or `"at_most"`."""
    from underfire.audit.schema import NEEDS, GateSpec

    flag = _FLAGS[key]
    name, _, value = text.rpartition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not name or not math.isfinite(limit):
        example = "robust_accuracy=0.5" if key == "at_least" else "interpretation_gap=0.5"
        raise InputError(f"{flag} must be NAME=VALUE, as in {example}, got {shown(text)}")
    if not 0 <= limit <= 1:
        meant = f"; {limit / 100:g}?" if 1 < limit <= 100 else ""
        raise InputError(f"{flag}: {name} is a share, so its limit must be in [0, 1], got {limit:g}{meant}")
    keys = _keys(name, spec)
    if keys is None:
        raise InputError(f"{flag}: the run has no figure {shown(name)}; {nearest(name, known(spec))}")
    if (needed := NEEDS[keys["measure"]][0]) != key:
        better = "lower" if needed == "at_most" else "higher"
        raise InputError(f"{flag}: {name} is the better the {better} it is; use {_FLAGS[needed]}")
    return Gate(name, GateSpec.model_validate({**keys, key: limit}))


def known(spec: AuditSpec) -> dict[str, dict[str, Any]]:
    """Return the keys of a gate of a spec by the names of the figures that a run of this spec has.

    They begin with the measure of a gate; the values of its other keys follow, those that may be left out last.
    `robust_accuracy` alone is `worst_accuracy`. An eps may follow each name of an attack or a norm.
    """
    found: dict[str, dict[str, Any]] = {
        "clean_accuracy": {"measure": "clean_accuracy"},
        "robust_accuracy": {"measure": "worst_accuracy"},
        "worst_accuracy": {"measure": "worst_accuracy"},
    }
    for norm in dict.fromkeys(attack.norm for attack in spec.attacks):
        found[f"worst_accuracy/{norm}"] = {"measure": "worst_accuracy", "norm": norm}
    for attack in spec.attacks:
        found[f"robust_accuracy/{attack.title}"] = {"measure": "robust_accuracy", "attack": attack.title}
        for entry in spec.interpreters:
            keys = {"measure": "map_iou", "attack": attack.title, "interpreter": entry.title}
            found[f"map_iou/{attack.title}/{entry.title}"] = keys
    if spec.interpreters:
        found["interpretation_gap"] = {"measure": "interpretation_gap"}
    for entry in spec.interpreters:
        found[f"interpretation_gap/{entry.title}"] = {"measure": "interpretation_gap", "interpreter": entry.title}
    return found


def _keys(name: str, spec: AuditSpec) -> dict[str, Any] | None:
    """Return the keys of a gate that a name stands for, with an eps or without; None if the run has no such figure."""
    from underfire.catalog import number

    names = known(spec)
    if name in names:
        return names[name]
    for base in sorted(names, key=len, reverse=True):
        keys = names[base]
        if not name.startswith(f"{base}/") or not {"attack", "norm"} & keys.keys():
            continue
        eps = number(name.removeprefix(f"{base}/"))
        attack, norm = keys.get("attack"), keys.get("norm")
        if any(eps in a.eps for a in spec.attacks if attack in (None, a.title) and norm in (None, a.norm)):
            return {**keys, "eps": eps}
    return None


def outcomes(found: Findings, gates: Sequence[Gate], *, confident: bool = False) -> list[GateResult]:
    """Return the outcomes of the gates of the spec and of `gates`.

    Args:
        found: the findings of the run.
        gates: the gates of the command line.
        confident: whether `gates` compare the ends of the 95 % intervals; otherwise they compare the estimates.
    """
    from underfire.audit.gates import judge

    clean = None if found.answered else found.clean
    figures = found.standing, clean, found.attacks, found.robust, found.shifts, found.gaps
    mine = [judge(g.spec.model_copy(update={"confident": confident}), *figures, name=g.name) for g in gates]
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

    messages = []
    if not sound(standing):
        means = "no gate holds" if results else "not finished, or not to be believed"
        messages += [f"{means}: {reason}" for reason in [standing.headline, *standing.reasons] if reason]
    for result in results:
        if result.state == "unknown":
            messages.append(f"gate failed: {result.name} is unknown, not {result.limit}")
        elif result.state == "missed":
            value = f"{result.value:.4g} ({result.compared})"
            messages.append(f"gate failed: {result.name} is {value}, not {result.limit}")
    return messages
