"""Findings of a run: the figures of its ledger, differences between attacks, gates, and a verdict in plain words.

The command line and the report use the same `Findings`. No function changes the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from underfire.audit.reading import (
    MAPS,
    PLAUSIBLE_IOU,
    AttackResult,
    MapShift,
    RobustAccuracy,
    Source,
    attack_results,
    checks,
    clean_accuracy,
    map_shifts,
    robust_accuracies,
)
from underfire.audit.schema import AuditSpec, GateSpec
from underfire.measures.statistics import paired_difference, rate
from underfire.records import Check, Interval

PAIRS = 6
"""The smallest number of pairs for a significant difference; with fewer, no two-sided sign test reaches 5 %."""


class Run(Source, Protocol):
    """A ledger with its spec."""

    @property
    def spec(self) -> AuditSpec:
        """The spec of the run."""
        ...

    @property
    def missing(self) -> int:
        """The number of cells that have no result yet."""
        ...


@dataclass(frozen=True)
class Difference:
    """A paired comparison of an attack aimed at an interpreter with a plain attack of the same norm and size.

    It compares the maps of the samples that both attacks fool, each sample with itself. Many maps stay plausible after
    a plain attack, too; so the difference shows whether maps were forged, but the rate of plausible maps does not.

    Attributes:
        label: the label of the attack aimed at the interpreter.
        baseline: the label of the plain attack.
        l1: mean difference of the L1 distances to the clean maps, aimed minus plain; negative where the aimed attack
            leaves the map closer to the clean one.
        iou: mean difference of the IoUs with the clean maps, aimed minus plain; positive where the aimed attack keeps
            more of the map.
        ious: mean IoU after the aimed and after the plain attack.
        plausible: share of plausible maps (see `PLAUSIBLE_IOU`) after the aimed and after the plain attack.
    """

    label: str
    baseline: str
    norm: str
    eps: float
    interpreter: str
    l1: Interval
    iou: Interval
    ious: tuple[float, float]
    plausible: tuple[Interval, Interval]

    @property
    def forged(self) -> bool:
        """Return whether the aimed attack keeps significantly more of the map: the whole interval of `iou` is above 0.

        With fewer than `PAIRS` samples no difference is significant: by chance, all of five samples favour one given
        attack once in 2 ** 5 times.
        """
        return self.iou.n >= PAIRS and self.iou.low > 0


@dataclass(frozen=True)
class GateResult:
    """The outcome of a gate of the spec; a gate without a result yet has the value None and fails."""

    name: str
    value: float | None
    at_least: float
    passed: bool


@dataclass(frozen=True)
class Findings:
    """All findings of a run.

    Attributes:
        clean: accuracy without an attack; None if there is no result yet.
        attacks: the results of every attack at every size.
        robust: the accuracies under all attacks of one norm and size together.
        shifts: the effects of every attack on the maps of every interpreter.
        differences: comparisons of attacks aimed at an interpreter with plain attacks.
        checks: the results of the masking checks.
        gates: the outcomes of the gates of the spec.
        missing: number of cells that have no result yet.
        verdict: the findings in a few sentences.
    """

    clean: Interval | None
    attacks: tuple[AttackResult, ...]
    robust: tuple[RobustAccuracy, ...]
    shifts: tuple[MapShift, ...]
    differences: tuple[Difference, ...]
    checks: tuple[Check, ...]
    gates: tuple[GateResult, ...]
    missing: int
    verdict: str

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)


def findings(ledger: Run) -> Findings:
    """Return all findings of a ledger."""
    clean, attacks = clean_accuracy(ledger), attack_results(ledger)
    robust, shifts, masking = robust_accuracies(ledger, attacks), map_shifts(ledger), checks(ledger)
    gaps = differences(ledger, shifts)
    return Findings(
        clean=clean,
        attacks=tuple(attacks),
        robust=tuple(robust),
        shifts=tuple(shifts),
        differences=tuple(gaps),
        checks=tuple(masking),
        gates=tuple(_judge(gate, clean, attacks, robust, shifts) for gate in ledger.spec.gates),
        missing=ledger.missing,
        verdict=verdict(clean, robust, shifts, gaps, masking),
    )


def differences(source: Source, found: Iterable[MapShift]) -> list[Difference]:
    """Compare every attack aimed at an interpreter with every plain attack of the same norm and size, by the maps."""
    found = list(found)
    aimed = [shift for shift in found if shift.attacked == shift.interpreter]
    key = ("norm", "eps", "interpreter")
    pairs = [
        (a, b) for a in aimed for b in found if not b.attacked and all(getattr(a, k) == getattr(b, k) for k in key)
    ]
    if not pairs:
        return []
    known = {tuple(row[k] for k in ("label", *key, "id")): row for row in source.sql(MAPS) if row["surely"]}
    result = []
    for a, b in pairs:
        place = (a.norm, a.eps, a.interpreter)
        fooled = [{name[-1] for name in known if name[:-1] == (label, *place)} for label in (a.label, b.label)]
        ids = sorted(fooled[0] & fooled[1])  # the samples that both attacks fool
        sides = [[known[label, *place, name] for name in ids] for label in (a.label, b.label)]
        l1, iou = (_difference(*([row[measure] for row in side] for side in sides)) for measure in ("l1", "iou"))
        overlaps = np.array([[row["iou"] for row in side] for side in sides], dtype=float)
        overlaps = overlaps[:, ~np.isnan(overlaps).any(0)]
        if overlaps.size:
            ious = float(overlaps[0].mean()), float(overlaps[1].mean())
            plausible = rate(overlaps[0] >= PLAUSIBLE_IOU), rate(overlaps[1] >= PLAUSIBLE_IOU)
            result.append(Difference(a.label, b.label, *place, l1, iou, ious, plausible))
    return result


def leading(found: Iterable[Difference]) -> list[Difference]:
    """Return one difference for every attack and the interpreter it is aimed at, the largest gain in IoU first.

    It is the comparison at the largest size, with the plain attack that shares the most fooled images with it. Of
    plain attacks that share equally many, it is the one that keeps most of the map, so that the gain is not
    overstated.
    """
    best: dict[tuple[str, str], Difference] = {}
    for gap in sorted(found, key=lambda d: (d.eps, d.iou.n, -d.iou.value)):
        best[gap.label, gap.interpreter] = gap
    return sorted(best.values(), key=lambda d: (not d.forged, -d.iou.value))


def _difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Return the mean paired difference `a - b` over the pairs without nan."""
    pairs = np.array([a, b], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(0)]
    return paired_difference(*pairs) if pairs.shape[1] else Interval(np.nan, np.nan, np.nan, 0)


def _judge(
    gate: GateSpec,
    clean: Interval | None,
    attacks: list[AttackResult],
    robust: list[RobustAccuracy],
    shifts: list[MapShift],
) -> GateResult:
    """Compare the figure that a gate names with its limit."""
    rates: list[Interval] = {
        "clean_accuracy": [clean] if clean else [],
        "robust_accuracy": [a.robust for a in attacks if (a.label, a.eps) == (gate.attack, gate.eps)],
        "worst_accuracy": [r.robust for r in robust if (r.norm, r.eps) == (gate.norm, gate.eps)],
        "map_iou": [
            s.iou for s in shifts if (s.label, s.eps, s.interpreter) == (gate.attack, gate.eps, gate.interpreter)
        ],
    }[gate.measure]
    parts = [gate.attack, gate.norm, None if gate.eps is None else f"eps {gate.eps:.4g}", gate.interpreter]
    name = " ".join([gate.measure.replace("_", " "), *filter(None, parts)])
    value = rates[0].value if rates else None
    return GateResult(name, value, gate.at_least, value is not None and value >= gate.at_least)


def verdict(
    clean: Interval | None,
    robust: Sequence[RobustAccuracy],
    shifts: Sequence[MapShift],
    gaps: Sequence[Difference],
    asked: Sequence[Check],
) -> str:
    """Return the findings in a few plain sentences."""
    sentences = []
    worst = min(robust, key=lambda r: (r.robust.value, r.norm, r.eps), default=None)
    if clean and worst:
        change = f"Accuracy falls from {clean.value:.1%} to {worst.robust.value:.1%}"
        spread = f"95% interval {worst.robust.low:.1%} to {worst.robust.high:.1%}, n = {worst.robust.n}"
        sentences.append(f"{change} under all attacks of {_size(worst)} together ({spread}).")
    ranked = leading(gaps)
    strongest = max((m for m in shifts if m.attacked == m.interpreter), key=lambda m: m.forged.value, default=None)
    if ranked:
        sentences.append(_forgery(ranked[0]))
        if len(ranked) > 1:
            sentences.append(
                f"Forged maps: {sum(gap.forged for gap in ranked)} of the {len(ranked)} that were attacked."
            )
    elif strongest:
        event = f"{strongest.label} changes the class and the {strongest.interpreter} map stays plausible"
        event += f" (IoU at least {PLAUSIBLE_IOU})"
        reason = "no plain attack of the same norm and size fools the same images, so there is nothing to compare with"
        sentences.append(f"In {strongest.forged.value:.1%} of {strongest.forged.n} images {event}; {reason}.")
    failed = [check.name for check in asked if not check.passed]
    if failed:
        warnings = f"{len(failed)} of {len(asked)} masking checks warn ({', '.join(failed)})"
        sentences.append(f"The model may be weaker than these numbers say: {warnings}.")
    elif asked:
        sentences.append(f"All {len(asked)} masking checks pass: there is no sign that the attacks were too weak.")
    return " ".join(sentences) or "Nothing has been measured yet."


def _forgery(gap: Difference) -> str:
    """Return a sentence on the gain of an attack on a map over the plain attack, with the rates of plausible maps."""
    gain = f"mean IoU {gap.ious[0]:.2f} against {gap.ious[1]:.2f}"
    if not np.isnan(gap.iou.low):
        gain += f", paired difference {gap.iou.value:+.2f} (95% interval {gap.iou.low:+.2f} to {gap.iou.high:+.2f})"
    where = f"the {gap.interpreter} map than {gap.baseline} at the same {_size(gap)}"
    kept = f"keeps more of {where}" if gap.forged else f"does not keep significantly more of {where}"
    aimed, plain = gap.plausible
    rates = f"{aimed.value:.1%} and {plain.value:.1%} of the maps stay plausible (IoU at least {PLAUSIBLE_IOU})"
    return f"{gap.label} {kept}, over the {gap.iou.n} images that both fool: {gain}; {rates}."


def _size(at: RobustAccuracy | Difference) -> str:
    return f"{at.norm} eps {at.eps:.3g}"
