"""Measure how often feature squeezing detects ADV² and PGD, before and after the attack adapts (Tables 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from underfire.audit.ledger import Ledger
from underfire.measures.detection import detection_rate, threshold
from underfire.reproductions.adv2.findings import outcome, run_audit, shift
from underfire.reproductions.adv2.system import CIFAR10, DIGITS, Aim, System
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.registry import Outcome, Setting

#: The squeezers of the authors' code, by family; a combination takes at most one of each.
FAMILIES = {
    "bits": [f"bit_depth_{bits}" for bits in range(1, 6)],
    "median": ["median_2", "median_3"],
    "non-local": [
        "non_local_means_11_3_2",
        "non_local_means_11_3_4",
        "non_local_means_13_3_2",
        "non_local_means_13_3_4",
    ],
}
SCHEMES = {"paper": "adaptive, as published", "bpda": "adaptive, through every squeezer"}
EVADED = ["bit_depth_3", "median_2", "median_3"]
RATE = 0.05
SYSTEMS = {"cluttered digits": DIGITS, "ResNet-56": CIFAR10}
BASIC = "ADV² on CAM"
ATTACKS = ("PGD", BASIC, *(f"{BASIC}, {how}" for how in SCHEMES.values()))

_HOW = """A cell is the share of the successful attacks that a detector flags, with its 95 % Clopper-Pearson interval.
The detector is the largest L1 distance between the probabilities of an image and those of its squeezed forms; its
threshold is exceeded by 5 % of held-out clean images. The mean is that over all 89 combinations of at most one bit
depth, one median and one non-local filter. ADV² keeps the map of CAM."""


def run(setting: Setting) -> Outcome:
    """Audit PGD, ADV² on CAM and its adaptive forms, score every squeezer, and combine their scores."""
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    systems = {"cluttered digits": DIGITS} if setting.quick else SYSTEMS
    for name, system in systems.items():
        ledger = run_audit(spec(system, setting), f"squeezing-{system.network}", setting)
        results[name] = {attack: _found(ledger, attack) for attack in ATTACKS}
        for attack, found in results[name].items():
            rates = found["detection"]
            cells = [show(rates[one]) for one in ("bit_depth_3", "median_2", "median_3", FAMILIES["non-local"][3])]
            best = max(rates, key=lambda key: rates[key].value)
            mean = sum(rate.value for rate in rates.values()) / len(rates)
            shown = "" if attack == "PGD" else show(found["maps"]["map_l1"][attack])
            rows.append(
                [name, attack, show(found["success"]), *cells, f"{mean:.3f}", f"{show(rates[best])}: {best}", shown]
            )
    return Outcome(
        title="Feature squeezing against ADV², and ADV² against feature squeezing",
        source=f"{SOURCE}, Tables 4 and 5, Observations 3 and 4",
        spec={name: spec(system, setting) | {"model": system.network} for name, system in systems.items()},
        columns=(
            "network",
            "attack",
            "success",
            "bit depth 3",
            "median 2",
            "median 3",
            "non-local 13-3-4",
            "mean of all",
            "most detected by",
            "map L1 of CAM",
        ),
        rows=rows,
        notes=[_HOW],
        results=results,
    )


def spec(system: System, setting: Setting) -> dict[str, Any]:
    """Return the audit of a system: the basic attacks, the adaptive forms, and one detector for every squeezer."""
    base = replace(system, aims={"CAM": Aim("cam")}).spec(setting)
    basic = base["attacks"][-1]
    evaded = EVADED[:1] if setting.quick else EVADED
    adaptive = [
        {**basic, "name": "adv2_squeezing", "label": f"{BASIC}, {how}", "scheme": scheme, "squeezers": evaded}
        for scheme, how in SCHEMES.items()
    ]
    detectors = [
        {"name": "feature_squeezing", "label": squeezer, "squeezers": [squeezer]}
        for family in FAMILIES.values()
        for squeezer in family
    ]
    return base | {"attacks": [*base["attacks"], *adaptive], "detectors": detectors, "false_positive_rate": RATE}


def combinations() -> Iterator[tuple[str, ...]]:
    """Yield every combination of at most one squeezer of each family, without the empty one."""
    for chosen in product(*(["", *family] for family in FAMILIES.values())):
        if any(chosen):
            yield tuple(name for name in chosen if name)


def _found(ledger: Ledger, attack: str) -> dict[str, Any]:
    """Return the outcome of an attack, the detection rate of every combination, and the shift of the maps."""
    held: dict[str, dict[str, float]] = {}
    for row in ledger.sql("SELECT detector, id, score FROM clean_scores WHERE held_out"):
        held.setdefault(row["detector"], {})[row["id"]] = row["score"]
    attacked: dict[str, dict[str, float]] = {}
    query = f"SELECT detector, id, score FROM scores WHERE label = '{attack}' AND was_right AND success"
    for row in ledger.sql(query):
        attacked.setdefault(row["detector"], {})[row["id"]] = row["score"]
    rates = {}
    for names in combinations():
        # the score of a joint detector is the largest of its squeezers
        usual, suspicious = (_largest(table, names) for table in (held, attacked))
        rates[" + ".join(names)] = detection_rate(suspicious, threshold(usual, RATE))
    found = outcome(ledger, attack) | {"detection": rates}
    return found if attack == "PGD" else found | {"maps": shift(ledger, ("PGD", attack), "CAM")}


def _largest(scores: dict[str, dict[str, float]], names: tuple[str, ...]) -> list[float]:
    """Return the largest of some scores of every image, of `scores` by detector and image."""
    return [max(scores[name][image] for name in names) for image in scores[names[0]]]
