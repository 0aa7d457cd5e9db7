"""Detect ADV² by the disagreement of several interpreters, and attack all of them at once (section 5.3, defence 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from underfire.audit.detection import detections
from underfire.reproductions.adv2.findings import outcome, run_audit
from underfire.reproductions.adv2.system import CIFAR10, DIGITS, Aim, System
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.registry import Outcome, Setting

SYSTEMS = {"cluttered digits": DIGITS, "ResNet-56": CIFAR10}
#: Complementary interpreters: by gradient, by features, and by a trained model.
ENSEMBLE = {"GRAD": "gradient", "CAM": "cam", "RTS": "rts"}
RATE = 0.05

_HOW = """The detector scores how unusual the distances between the maps of GRAD, CAM and RTS are; its threshold is
exceeded by 5 % of held-out clean images. The detection rate is that of successful attacks, with its 95 % interval. ADV²
on all three is the adaptive attack, which the paper names and leaves open."""


def run(setting: Setting) -> Outcome:
    """Audit PGD, ADV² on each interpreter and ADV² on all, under the detector that compares their maps."""
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    systems = {"cluttered digits": DIGITS} if setting.quick else SYSTEMS
    for name, system in systems.items():
        ledger = run_audit(spec(system, setting), f"ensemble-{system.network}", setting)
        results[name] = {}
        for found in detections(ledger, RATE):
            success = outcome(ledger, found.label)
            results[name][found.label] = {"detection": found, **success}
            cells = [show(success["success"]), show(success["confidence"]), show(found.rate), show(found.auroc)]
            rows.append([name, found.label, *cells])
    return Outcome(
        title="An ensemble of interpreters against ADV², and ADV² against the ensemble",
        source=f"{SOURCE}, section 5.3; the paper measures neither",
        spec={name: spec(system, setting) | {"model": system.network} for name, system in systems.items()},
        columns=("network", "attack", "success", "confidence", "detected", "AUROC"),
        rows=rows,
        notes=[_HOW],
        results=results,
    )


def spec(system: System, setting: Setting) -> dict[str, Any]:
    """Return the audit of a system with the detector and the attack on all its interpreters."""
    aims = {label: system.aims.get(label, Aim(name)) for label, name in ENSEMBLE.items()}
    base = replace(system, aims=aims).spec(setting)
    names = [aim.name for aim in aims.values()]
    common = {key: base["attacks"][-1][key] for key in ("eps", "goal")}
    common["steps"], common["warm_steps"] = system.effort(setting)  # as many as the interpreter that needs most
    everything = {**common, "name": "adv2_ensemble", "label": "ADV² on all", "interpreters": names}
    detector = {"name": "ensemble_interpretation", "label": "disagreement", "interpreters": names}
    return base | {
        "attacks": [*base["attacks"], everything],
        "detectors": [detector],
        "false_positive_rate": RATE,
    }
