"""Write the table of ADV² against PGD, and what it says about the published claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from underfire.audit.map_shifts import PLAUSIBLE_IOU
from underfire.records import Interval
from underfire.reproductions.adv2.findings import audited, outcome, ratio, shift
from underfire.reproductions.adv2.system import System
from underfire.reproductions.registry import Outcome, Setting

SOURCE = "Zhang et al., Interpretable Deep Learning under Fire, USENIX Security 2020"
COLUMNS = ("network", "attack", "maps of", "success", "confidence", "map L1", "map L2", "IoU, top 20 %", "paper")

#: Success (and confidence) on ResNet-50, Table 3; map distances are only plotted in the paper.
PUBLISHED = {
    "PGD": "100 % (1.0)",
    "GRAD": "100 % (0.99)",
    "CAM": "100 % (1.0)",
    "MASK": "98 % (0.99)",
    "RTS": "100 % (1.0)",
}
WANTED = {"CAM": 0.15, "Grad-CAM": 0.15, "MASK": 0.4, "RTS": 0.4, "GRAD": 1.0, "GRAD, every pixel": 1.0}
"""The largest ratio of the mean map L1 after ADV² to that after PGD that an interpreter should have."""
GAIN = 1.4
"""The ratio of the mean IoU after ADV² to that after PGD; the paper has more for every interpreter."""

HOW = """Only photographs or images that the network classifies correctly count. Brackets are 95 % intervals:
Clopper-Pearson for success, BCa bootstrap for means. Confidence is that of the successes in the goal, one random other
class for each image. Maps are min-max normalised and compared with the map of the clean image for its class; map L1 and
L2 are per pixel."""


def compare(systems: Mapping[str, System], setting: Setting, *, title: str, notes: Sequence[str]) -> Outcome:
    """Return the comparison of ADV² with PGD on some systems."""
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    said: list[str] = []
    systems = {name: system.at(setting) for name, system in systems.items()}
    for name, system in systems.items():
        results[name] = _results(system, setting)
        rows += _rows(name, system, results[name])
        said += [
            f"{name}, n = {results[name][system.framework.label]['success'].n}.",
            *_sentences(system, results[name]),
        ]
    return Outcome(
        title=title,
        source=f"{SOURCE}, Tables 3 and 12, Figures 5 and 6",
        spec={name: system.spec(setting) | {"model": system.network} for name, system in systems.items()},
        columns=COLUMNS,
        rows=rows,
        notes=[HOW, *said, *notes],
        results=results,
    )


def _results(system: System, setting: Setting) -> dict[str, Any]:
    """Return the outcome of every attack, and the shift of the maps under each ADV² attack.

    Every interpreter has an audit of its own, because the maps of one after the attack on another are not needed here.
    """
    alone = system.framework.label
    found: dict[str, Any] = {}
    for label, aim in system.aims.items():
        ledger, attack = audited(system.only(label), setting), f"ADV² on {label}"
        found |= {name: outcome(ledger, name) for name in (alone, attack)}
        for form in (label, *aim.measured):
            found[form] = shift(ledger, (alone, attack), form)
    return found


def _rows(name: str, system: System, found: Mapping[str, Any]) -> list[list[str]]:
    alone = system.framework.label
    rows = [[name, alone, "", *_outcome(found[alone]), "", "", "", PUBLISHED.get(alone, "")]]
    for label, aim in system.aims.items():
        attack = f"ADV² on {label}"
        for form in (label, *aim.measured):
            rows.append([name, alone, form, "", "", *_maps(found[form], alone), ""])
            published = PUBLISHED.get(form, "not in the paper")
            rows.append([name, attack, form, *_outcome(found[attack]), *_maps(found[form], attack), published])
    return rows


def _sentences(system: System, found: Mapping[str, Any]) -> list[str]:
    """Return a sentence on every interpreter: how near its maps stay, and whether that reaches the aims."""
    said, alone = [], system.framework.label
    for label, aim in system.aims.items():
        pair = alone, f"ADV² on {label}"
        for form in (label, *aim.measured):
            l1, iou, limit = ratio(found[form], "map_l1", pair), ratio(found[form], "map_iou", pair), WANTED[form]
            difference = found[form]["map_l1"]["difference"]
            kept = found[form]["map_iou"][pair[1]]
            said.append(
                f"{form}: map L1 {l1:.2f} of that under {alone} (wanted ≤ {limit:g} and lower, "
                f"{_reached(l1 <= limit and difference.high < 0)}; paired difference {show(difference)}); IoU "
                f"{show(kept)} (wanted ≥ {PLAUSIBLE_IOU:g}, {_reached(kept.value >= PLAUSIBLE_IOU)}), {iou:.2f} times "
                f"that under {alone} (wanted ≥ {GAIN:g}, {_reached(iou >= GAIN)})."
            )
    return said


def _reached(reached: bool) -> str:
    return "reached" if reached else "missed"


def _outcome(found: Mapping[str, Interval]) -> list[str]:
    return [show(found["success"]), show(found["confidence"])]


def _maps(found: Mapping[str, Any], attack: str) -> list[str]:
    return [show(found[measure][attack]) for measure in ("map_l1", "map_l2", "map_iou")]


def show(value: Interval) -> str:
    """Return an estimate with its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
