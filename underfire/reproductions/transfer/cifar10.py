"""Craft attacks on CIFAR-10 networks, and show the images to the others and to adversarially trained ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from underfire.audit.ledger import Ledger
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, above
from underfire.reproductions.transfer.grid import ATTACKS, MODERN, Fooled, Grid, fooled, mean_fooled
from underfire.reproductions.transfer.page import outcome

_FILE = "{root}/weights/%s.safetensors?arch=%s"
_WRESNET = "{root}/weights/interpretability_aware/cifar10_wresnet_%s.safetensors?arch=cifar10_wresnet_%s"
SOURCES: dict[str, str | list[str]] = {
    **{f"ResNet-{depth}": _FILE % (2 * (f"resnet{depth}_cifar10",)) for depth in (20, 32, 56)},
    "WResnet": _WRESNET % ("normal", "normal"),
}
TRAINED = {f"WResnet, {name}": _WRESNET % (name, name) for name in ("adv", "trades", "intadv", "int2adv")}
"""The adversarially trained networks of Boopathy et al. 2020."""

BASE = "I-FGSM (BIM)"
PARTS = {
    "SI-NI-TI-DIM": ("SIM", "NI-FGSM", "TIM", "DIM"),
    "TAP+ATA": ("TAP", "ATA"),
    "AT-SI-NI-TI-DIM": ("ATTA", "SI-NI-TI-DIM"),
}
"""Compositions with the attacks that they are made of."""
REGULARISED = tuple(label for label in ATTACKS if label not in ("FGSM", BASE, *PARTS, *MODERN))
"""The attacks that add one idea to BIM."""

GRID = Grid(
    name="transfer-cifar10",
    data="parquet:{root}/cifar10-test.parquet",
    sources=SOURCES,
    victims={**SOURCES, **TRAINED},
    attacks={label: name for label, name in ATTACKS.items() if label not in MODERN},
    sizes=["8/255", "16/255"],
    images=(2, 500, 1000),
)

_SEED = """The complementary effect in the slides (accuracy of the victims under attack, lower is better): TAP 58.4,
27.3, 1.8, 24.2, 51.7 %; TAP+ATA 53.6, 22.7, 0.8, 19.8, 48.1 %. Independent measurements find ATA below MI-FGSM."""


def run(setting: Setting) -> Outcome:
    """Run the audit, and decide at both sizes what must hold."""
    ledger = GRID.run(setting)
    decisions = [one for eps in (8 / 255, 16 / 255) for one in decided(ledger, eps)]
    return outcome(
        GRID,
        setting,
        ledger,
        decisions,
        title="Transfer between networks for CIFAR-10, some of them adversarially trained",
        source="the slides of seed 001 (TAP, ATA, SI-NI-TI-DIM), whose networks are for ImageNet",
        notes=[_SEED],
    )


def decided(ledger: Ledger, eps: float) -> list[Decision]:
    """Return what must hold at one size."""
    found = {label: fooled(ledger, label, eps) for label in GRID.attacks}
    at = f", eps {255 * eps:.0f}/255"
    decisions = [_in_rows(label, found, at) for label in REGULARISED if label in found]
    means = {label: mean_fooled(one) for label, one in found.items()}
    for whole, parts in PARTS.items():
        known = [part for part in parts if {whole, part} <= means.keys()]
        decisions += [above(f"{whole} > {part}{at}", means[whole], means[part]) for part in known]
    return decisions


def _in_rows(label: str, found: Mapping[str, Mapping[tuple[str, str, str], Fooled]], at: str) -> Decision:
    """Return whether an attack fools more images than BIM from at least three sources."""
    rows = {
        source: above("", mean_fooled(found[label], source), mean_fooled(found[BASE], source)) for source in SOURCES
    }
    better = [source for source, row in rows.items() if row.holds]
    clear = [row.holds for row in rows.values() if row.sure]
    sure = sum(clear) >= 3 or clear.count(False) >= 2
    gains = np.mean([np.mean(mean_fooled(found[label], s)) - np.mean(mean_fooled(found[BASE], s)) for s in SOURCES])
    figures = f"better from {len(better)} of {len(rows)} sources, {100 * gains:+.1f} points on average"
    return Decision(f"{label} > BIM in three rows of four{at}", len(better) >= 3, figures, sure)
