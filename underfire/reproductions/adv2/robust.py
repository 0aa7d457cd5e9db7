"""Measure the gap between prediction and explanation on networks trained to be robust in the one or in the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underfire.audit.gaps import Gap, gaps
from underfire.reproductions.adv2.findings import run_audit
from underfire.reproductions.adv2.table import show
from underfire.reproductions.registry import Outcome, Setting

#: The training of each network, by its name in the data (Boopathy et al., ICML 2020).
TRAININGS = {
    "normal": "normal",
    "adv": "adversarial (PGD)",
    "trades": "TRADES",
    "intone": "maps kept, one class",
    "int": "maps kept",
    "intadv": "maps kept, adversarial",
    "int2": "maps kept, two classes",
    "int2adv": "maps kept, two classes, adversarial",
}
#: The networks, their images, how many of them, and the sizes at which they are attacked.
FAMILIES: dict[str, dict[str, Any]] = {
    "mnist_small": {"data": "mnist:{root}/mnist", "n": 100, "eps": [0.1, 0.2, 0.3]},
    "cifar10_wresnet": {"data": "parquet:{root}/cifar10-test.parquet", "n": 16, "eps": ["4/255", "8/255", "12/255"]},
}
MAPS = {"GRAD": "gradient", "CAM": "cam", "Grad-CAM": "grad_cam"}
STEPS, WARM_STEPS = 60, 20

_HOW = """The gap is 0 if the maps change wherever the prediction changes, and 1 if the maps can be kept whole wherever
the prediction can be changed; `docs/gap.md` defines it. Beside it stands the share of the images whose class the
attacks changed at the largest size: the gap is that of these images alone. Attacks are untargeted PGD, and ADV² on each
map. Brackets are 95 % bootstrap intervals over the images."""


def run(setting: Setting) -> Outcome:
    """Audit every network at several sizes, with PGD and with ADV² on each interpreter."""
    families = dict(list(FAMILIES.items())[:1]) if setting.quick else FAMILIES
    trainings = ("normal", "adv") if setting.quick else tuple(TRAININGS)
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    for family in families:
        for training in trainings:
            ledger = run_audit(spec(family, training, setting), f"robust-{family}-{training}", setting)
            found = {gap.interpreter: gap for gap in gaps(ledger)}
            results[f"{family}_{training}"] = found
            largest = max(gap.fooled[-1] for gap in found.values())
            cells = [_cell(found[label]) for label in MAPS]
            rows.append([family, TRAININGS[training], f"{largest:.2f}", *cells])
    return Outcome(
        title="Does robust training close the gap between prediction and explanation?",
        source="the networks of Boopathy et al., Proper Network Interpretability Helps Adversarial Robustness in "
        "Classification, ICML 2020; no published table compares their gaps",
        spec={family: spec(family, "TRAINING", setting) | {"model": f"{family}_TRAINING"} for family in families},
        columns=("network", "training", "fooled", *(f"gap of {label}" for label in MAPS)),
        rows=rows,
        notes=[_HOW, *(_answer(family, results) for family in families)],
        results=results,
    )


def spec(family: str, training: str, setting: Setting) -> dict[str, Any]:
    """Return the audit of one network."""
    settings, name = FAMILIES[family], f"{family}_{training}"
    steps, warm = (4, 2) if setting.quick else (STEPS, WARM_STEPS)
    sizes = settings["eps"][-1:] if setting.quick else settings["eps"]
    n = {"quick": 4, "default": settings["n"], "full": 1000}[setting.scale]
    aimed = [
        {
            "name": "adv2",
            "label": f"ADV² on {label}",
            "interpreter": {"name": interpreter, "label": label},
            "eps": sizes,
            "steps": steps,
            "warm_steps": warm,
        }
        for label, interpreter in MAPS.items()
    ]
    return {
        "model": f"{setting.root}/weights/interpretability_aware/{name}.safetensors?arch={name}",
        "data": {"uri": settings["data"].format(root=setting.root), "n": n, "seed": setting.seed},
        "attacks": [{"name": "pgd", "label": "PGD", "eps": sizes, "steps": steps + warm}, *aimed],
        "interpreters": [{"name": interpreter, "label": label} for label, interpreter in MAPS.items()],
        "measures": ["map_l1", "map_iou"],
        "masking": False,
        "gallery": 2,
        "shard_size": 50,
        "device": setting.device,
    }


def _answer(family: str, results: Mapping[str, Mapping[str, Gap]]) -> str:
    """Return which trainings have a smaller or a larger gap than the usual one, by intervals that do not overlap."""
    usual, said = results[f"{family}_normal"], []
    for label in MAPS:
        base, places = usual[label].value, dict[str, list[str]](smaller=[], larger=[])
        for training, name in TRAININGS.items():
            if training != "normal" and (found := results.get(f"{family}_{training}")):
                gap = found[label].value
                if gap.high < base.low or gap.low > base.high:
                    places["smaller" if gap.high < base.low else "larger"].append(name)
        told = (f"{where} with {', '.join(names)}" for where, names in places.items() if names)
        said.append(f"{label}: " + ("; ".join(told) or "no training differs"))
    return f"{family}, the gap against that of the usual training, by intervals that do not overlap. {'. '.join(said)}."


def _cell(gap: Gap) -> str:
    return f"{show(gap.value)}; PGD alone {gap.plain.value:.3f}"
