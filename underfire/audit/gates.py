"""Gates: compare figures of a run with limits. A gate holds only on a finished run that can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from underfire.audit.gaps import Gap
from underfire.audit.map_shifts import MapShift
from underfire.audit.reading import AttackResult, RobustAccuracy, largest
from underfire.audit.schema import GateSpec
from underfire.audit.sizes import norm, size
from underfire.audit.standing import Standing
from underfire.records import Interval

State = Literal["held", "missed", "unknown", "unsure"]


@dataclass(frozen=True)
class GateResult:
    """The outcome of a gate.

    Attributes:
        name: what the gate compares, in words.
        value: the number that was compared; None if the run has no result for it.
        at_least: the lowest value that holds; None if the gate has `at_most`.
        confident: whether `value` is an end of the 95 % interval, the lower one for `at_least` and the upper one for
            `at_most`; otherwise it is the estimate itself.
        state: `"held"`; `"missed"`: the value is beyond the limit; `"unknown"`: there is no value; `"unsure"`: the
            value is within the limit, but the run is not finished or cannot be believed.
        at_most: the highest value that holds; None if the gate has `at_least`.
    """

    name: str
    value: float | None
    at_least: float | None
    confident: bool
    state: State
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        """Return whether the gate holds."""
        return self.state == "held"

    @property
    def compared(self) -> str:
        """Return in words which number was compared."""
        end = "lower" if self.at_most is None else "upper"
        return f"{end} end of the 95 % interval" if self.confident else "estimate"

    @property
    def limit(self) -> str:
        """Return the limit in words, such as `at least 0.5`."""
        return f"at least {self.at_least:g}" if self.at_most is None else f"at most {self.at_most:g}"


def decide(
    name: str,
    rate: Interval | None,
    at_least: float | None,
    *,
    confident: bool,
    sound: bool,
    at_most: float | None = None,
) -> GateResult:
    """Return the outcome of a gate on a figure; `sound` says whether the run is finished and can be believed."""
    value = None
    if rate is not None:
        cautious = rate.low if at_most is None else rate.high
        value = cautious if confident else rate.value
    if value is None or math.isnan(value):
        return GateResult(name, None, at_least, confident, "unknown", at_most)
    missed = (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
    state: State = "missed" if missed else "held" if sound else "unsure"
    return GateResult(name, value, at_least, confident, state, at_most)


def sound(standing: Standing) -> bool:
    """Return whether a gate can hold: the run is finished, every attack could be run, and it can be believed."""
    return standing.level in ("open", "firm")


def judge(
    gate: GateSpec,
    standing: Standing,
    clean: Interval | None,
    attacks: Sequence[AttackResult],
    robust: Sequence[RobustAccuracy],
    shifts: Sequence[MapShift],
    gaps: Sequence[Gap],
    *,
    name: str = "",
    norms: Mapping[str, str] | None = None,
) -> GateResult:
    """Return the outcome of a gate; a gap has a value only if an attack of the run aimed at the map.

    A gate of the command line may leave out keys: without a size, each attack counts at its largest size, and all
    attacks together count at every size. The worst of all figures that fit is compared.

    Args:
        gate: the gate.
        standing: how far the figures of the run can be used.
        clean: the accuracy on clean images.
        attacks: the results of the attacks.
        robust: the accuracies under all attacks of one norm and size together.
        shifts: the effect of the attacks on the maps.
        gaps: the prediction-interpretation gaps.
        name: the name of the gate in messages; without one, it is made from the keys.
        norms: the norm of each attack by its label, for the name of a gate on an attack without a result.
    """

    def fits(entry: Any, *keys: str) -> bool:
        return all(getattr(gate, key) in (None, getattr(entry, _FIELDS.get(key, key))) for key in keys)

    hits, moved = (list(attacks), list(shifts)) if gate.eps is not None else (largest(attacks), largest(shifts))
    rates: list[Interval] = {
        "clean_accuracy": [clean] if clean else [],
        "robust_accuracy": [a.robust for a in hits if fits(a, "attack", "eps")],
        "worst_accuracy": [r.robust for r in robust if fits(r, "norm", "eps")],
        "map_iou": [s.iou for s in moved if fits(s, "attack", "eps", "interpreter")],
        "interpretation_gap": [g.value for g in gaps if g.aimed and fits(g, "norm", "interpreter")],
    }[gate.measure]
    known = [rate for rate in rates if not math.isnan(rate.value)]
    worst = min if gate.at_most is None else max
    rate = worst(known, key=lambda rate: rate.value, default=None)
    name = name or _name(gate, {**(norms or {}), **{a.label: a.norm for a in attacks}})
    return decide(name, rate, gate.at_least, at_most=gate.at_most, confident=gate.confident, sound=sound(standing))


_FIELDS = {"attack": "label"}  # the field of a result that a key of a gate selects, where it has another name


def _name(gate: GateSpec, norms: Mapping[str, str]) -> str:
    """Return the name of a gate of a spec, in words."""
    unit = gate.norm or norms.get(gate.attack or "", "")
    eps = None if gate.eps is None else f"eps {size(unit, gate.eps)}"
    parts = [gate.attack, gate.norm and norm(gate.norm), eps, gate.interpreter]
    return " ".join([gate.measure.replace("_", " "), *filter(None, parts)])
