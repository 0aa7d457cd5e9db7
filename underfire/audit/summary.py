"""Findings of a run: its figures, comparisons, gates, how far they can be used, and a verdict in plain words.

The command line and the report use the same `Findings`. No function changes the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from underfire.audit import gap_words
from underfire.audit.blank_maps import BlankMaps, blank_maps
from underfire.audit.comparison import Difference, differences
from underfire.audit.credibility import Refusal, answers, checks, rivals
from underfire.audit.detection import Detection, DetectorResult, detections, detector_results
from underfire.audit.detector_differences import DetectorDifference, detector_differences
from underfire.audit.gaps import Gap, gaps
from underfire.audit.gates import GateResult, judge
from underfire.audit.interpreter_transfer import InterpreterTransfer, interpreter_transfers
from underfire.audit.map_shifts import MapShift, map_shifts
from underfire.audit.methods import FALSE_POSITIVES
from underfire.audit.quadrants import Quadrants, quadrants
from underfire.audit.reading import (
    AttackResult,
    RobustAccuracy,
    Source,
    attack_results,
    clean_accuracy,
    robust_accuracies,
)
from underfire.audit.schema import AuditSpec
from underfire.audit.sentences import verdict
from underfire.audit.standing import FIRM, Evidence, Standing, assess
from underfire.audit.transfer import Transfer, transfer
from underfire.records import Check, Interval


class Run(Source, Protocol):
    """A ledger with its spec."""

    @property
    def spec(self) -> AuditSpec:
        """The spec of the run."""
        ...

    @property
    def environment(self) -> dict[str, Any]:
        """The versions, the machine, the model and the data of the run."""
        ...

    @property
    def missing(self) -> int:
        """The number of cells that have no result yet."""
        ...

    @property
    def planned(self) -> int:
        """The number of cells of the plan."""
        ...

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The methods of the spec that could not be run on this model."""
        ...


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
        refused: the methods that could not be run on this model.
        standing: how far the figures can be used.
        blank: the interpreters that gave maps that show nothing.
        answered: whether the images have no labels and the model's own answers count as right, so that its accuracy
            without an attack is 100 % by definition; no gate on it has a value then.
        gap: the largest prediction-interpretation gap and what it means, in one line.
        gaps: the prediction-interpretation gap of every interpreter, the one in `gap` first.
        transfer: the attacks on every source, as every victim sees them; None without victims.
        quadrants: the quadrants of prediction and explanation into which the samples fall.
        interpreter_transfers: the maps of every interpreter after every attack that is aimed at one.
        detections: how well each detector sees each attack.
        detectors: how well each detector sees all attacks, and the one that it sees least.
        detector_differences: by how much the best detector sees each attack better than each other one.
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
    refused: tuple[Refusal, ...] = ()
    standing: Standing = FIRM
    blank: tuple[BlankMaps, ...] = ()
    answered: bool = False
    gap: str = ""
    gaps: tuple[Gap, ...] = ()
    interpreter_transfers: tuple[InterpreterTransfer, ...] = ()
    detections: tuple[Detection, ...] = ()
    detectors: tuple[DetectorResult, ...] = ()
    detector_differences: tuple[DetectorDifference, ...] = ()
    quadrants: tuple[Quadrants, ...] = ()
    transfer: Transfer | None = None

    @property
    def passed(self) -> bool:
        """Return whether every gate passed."""
        return all(gate.passed for gate in self.gates)


_FOUND: WeakKeyDictionary[Run, Findings] = WeakKeyDictionary()


def findings(ledger: Run) -> Findings:
    """Return all findings of a ledger; its tables never change, so they are computed once."""
    if ledger not in _FOUND:
        _FOUND[ledger] = _compute(ledger)
    return _FOUND[ledger]


def _compute(ledger: Run) -> Findings:
    clean, attacks = clean_accuracy(ledger), attack_results(ledger)
    robust, shifts, masking = robust_accuracies(ledger, attacks), map_shifts(ledger), checks(ledger)
    compared, answered = differences(ledger, shifts), bool(ledger.environment.get("answered"))
    known, apart, blank = None if answered else clean, gaps(ledger), tuple(blank_maps(ledger))
    transferred = transfer(ledger)
    standing = assess(
        Evidence(
            clean=clean,
            answers=answers(ledger, ledger.environment),
            attacks=attacks,
            robust=robust,
            checks=masking,
            rivals=rivals(ledger),
            refused=ledger.refusals,
            missing=ledger.missing,
            planned=ledger.planned,
            transferred=transferred.best if transferred else None,
        )
    )
    norms = {entry.title: str(entry.norm) for entry in ledger.spec.attacks}
    flagged = ledger.spec.false_positive_rate or FALSE_POSITIVES
    detectors = detector_results(ledger, flagged)
    return Findings(
        clean=clean,
        attacks=tuple(attacks),
        robust=tuple(robust),
        shifts=tuple(shifts),
        differences=tuple(compared),
        checks=tuple(masking),
        gates=tuple(
            judge(gate, standing, known, attacks, robust, shifts, apart, norms=norms) for gate in ledger.spec.gates
        ),
        missing=ledger.missing,
        verdict=verdict(standing, clean, robust, shifts, compared, masking, blank=blank, answered=answered),
        refused=ledger.refusals,
        standing=standing,
        blank=blank,
        answered=answered,
        gap=gap_words.line(next(iter(apart), None), standing),
        gaps=tuple(apart),
        quadrants=tuple(quadrants(ledger)),
        interpreter_transfers=tuple(interpreter_transfers(ledger, attacks)),
        transfer=transferred,
        detections=tuple(detections(ledger, flagged)),
        detectors=tuple(detectors),
        detector_differences=tuple(detector_differences(ledger, detectors)),
    )
