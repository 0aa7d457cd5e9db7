"""Measure whether ADV² against one interpreter deceives another: map distances, source by target (Table 9)."""

from __future__ import annotations

from typing import Any

from underfire.measures.statistics import bootstrap_mean
from underfire.reproductions.adv2.findings import audited, values
from underfire.reproductions.adv2.system import CIFAR10, DIGITS, System
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.registry import Outcome, Setting

_LIKE_CAM = {"ADV² on Grad-CAM", "Grad-CAM"}
SYSTEMS = {"cluttered digits": DIGITS, "ResNet-56": CIFAR10}

_HOW = """Each cell is the mean map L1 per pixel between the map of the adversarial image for its new class and that of
the clean image, over the images on which the attack succeeded, as in the paper; brackets are 95 % BCa bootstrap
intervals. The row PGD is the attack that ignores explanations. The averages below leave out Grad-CAM, which is not in
the paper, and which on these networks is CAM but for its scale."""


def run(setting: Setting) -> Outcome:
    """Read the distances from the audits of `adv2-digits` and `adv2-cifar10`, which are run if they are missing."""
    columns: tuple[str, ...] = ()
    rows, results, notes = [], {}, [_HOW]
    systems = {name: system.at(setting) for name, system in SYSTEMS.items()}
    for name, system in systems.items():
        results[name] = matrix(system, setting)
        columns = ("network", "attack", *system.aims)
        rows += [
            [name, attack, *(show(cell["map_l1"]) for cell in row.values())] for attack, row in results[name].items()
        ]
        notes.append(f"{name}: {_sentence(results[name])}")
    return Outcome(
        title="ADV² against one interpreter, seen by another",
        source=f"{SOURCE}, Table 9 and Observation 7",
        spec={name: system.spec(setting) | {"model": system.network} for name, system in systems.items()},
        columns=columns,
        rows=rows,
        notes=notes,
        results=results,
    )


def matrix(system: System, setting: Setting) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the mean of every measure, by attack (source) and by interpreter (target)."""
    ledger = audited(system, setting)
    return {
        attack: {
            target: {
                measure: bootstrap_mean(list(row.values()))
                for measure, row in values(ledger, attack, target, successes=True).items()
            }
            for target in system.aims
        }
        for attack in ("PGD", *(f"ADV² on {label}" for label in system.aims))
    }


def _sentence(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return how near the maps are that were attacked, and those that were not, relative to PGD."""
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for attack, row in found.items():
        for target, cell in row.items():
            if attack != "PGD" and _LIKE_CAM.isdisjoint((attack, target)):
                same = attack == f"ADV² on {target}"
                ratios[same].append(cell["map_l1"].value / found["PGD"][target]["map_l1"].value)
    own, other = (sum(ratios[same]) / len(ratios[same]) for same in (True, False))
    return f"on average the map L1 is {own:.2f} of PGD's for the attacked interpreter and {other:.2f} for another one."
