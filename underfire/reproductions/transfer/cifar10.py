"""Craft attacks on CIFAR-10 networks, and show the images to the others and to adversarially trained ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from underfire.audit.ledger import Ledger
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, above
from underfire.reproductions.transfer.grid import SMALL, Fooled, Grid, fooled, mean_fooled, means_of
from underfire.reproductions.transfer.page import outcome
from underfire.reproductions.transfer.parts import part

_FILE = "{root}/weights/%s.safetensors?arch=%s"
_WRESNET = "{root}/weights/interpretability_aware/cifar10_wresnet_%s.safetensors?arch=cifar10_wresnet_%s"
SOURCES: dict[str, str | list[str]] = {
    **{f"ResNet-{depth}": _FILE % (2 * (f"resnet{depth}_cifar10",)) for depth in (20, 32, 56)},
    "WResnet": _WRESNET % ("normal", "normal"),
}
TRAINED = {f"WResnet, {name}": _WRESNET % (name, name) for name in ("adv", "trades", "intadv", "int2adv")}
"""The adversarially trained networks of Boopathy et al. 2020."""

Pairs = Mapping[tuple[str, str, str], Fooled]
"""The fooled images by source, victim and way."""

BASE = "I-FGSM (BIM)"
COMPOSITIONS = {
    "SI-NI-TI-DIM": ("SIM", "NI-FGSM", "TIM", "DIM"),
    "TAP+ATA": ("TAP", "ATA"),
    "AT-SI-NI-TI-DIM": ("ATTA", "SI-NI-TI-DIM"),
}
"""Compositions with the attacks that they are made of."""
REGULARISED = tuple(label for label in SMALL if label not in ("FGSM", BASE, *COMPOSITIONS))
"""The attacks that add one idea to BIM."""

GRID = Grid(
    name="transfer-cifar10",
    data="parquet:{root}/cifar10-test.parquet",
    sources=SOURCES,
    victims={**SOURCES, **TRAINED},
    attacks=SMALL,
    sizes=["8/255", "16/255"],
    images=(2, 500, 1000),
)

_SOURCE = "slides on TAP, ATA and SI-NI-TI-DIM, whose networks are for ImageNet"
PARTS = {
    label.lower().replace("-", ""): part(
        GRID, f"Transfer from {label} to other networks for CIFAR-10", source=_SOURCE, sources=[label]
    )
    for label in SOURCES
}
"""The parts by name: one for each source."""
_SEED = """The complementary effect in the slides (accuracy of the victims under attack, lower is better): TAP 58.4,
27.3, 1.8, 24.2, 51.7 %; TAP+ATA 53.6, 22.7, 0.8, 19.8, 48.1 %. Independent measurements find ATA below MI-FGSM.
`transfer-attention` measures whether ATA would add more with a larger weight."""


def run(setting: Setting) -> Outcome:
    """Run the audit, and decide at both sizes what must hold."""
    grid = GRID.at(setting)
    ledger = grid.run(setting)
    decisions = [one for eps in (8 / 255, 16 / 255) for one in decided(grid, ledger, eps)]
    return outcome(
        grid,
        setting,
        ledger,
        decisions,
        title="Transfer between networks for CIFAR-10, some of them adversarially trained",
        source=_SOURCE,
        notes=[_SEED],
    )


def decided(grid: Grid, ledger: Ledger, eps: float) -> list[Decision]:
    """Return what must hold at one size."""
    at = f", eps {255 * eps:.0f}/255"
    base = fooled(ledger, BASE, eps)
    rows = {label: fooled(ledger, label, eps) for label in REGULARISED if label in grid.attacks}
    decisions = [_in_rows(label, found, base, at) for label, found in rows.items() if found]
    means = means_of(grid, ledger, eps)
    for whole, parts in COMPOSITIONS.items():
        known = [part for part in parts if {whole, part} <= means.keys()]
        decisions += [above(f"{whole} > {part}{at}", means[whole], means[part]) for part in known]
    return decisions


def _in_rows(label: str, found: Pairs, base: Pairs, at: str) -> Decision:
    """Return whether an attack fools more images than BIM from at least three of four sources.

    A source on which the attack was refused is no row.
    """
    sources = [source for source in dict.fromkeys(s for s, _, _ in base) if any(s == source for s, _, _ in found)]
    rows = [above("", mean_fooled(found, source), mean_fooled(base, source)) for source in sources]
    better, clear = sum(row.holds for row in rows), [row.holds for row in rows if row.sure]
    needed = min(3, len(rows))
    gain = np.mean([mean_fooled(found, s) - mean_fooled(base, s) for s in sources])
    figures = f"better from {better} of {len(rows)} sources, {100 * gain:+.1f} points on average"
    sure = sum(clear) >= needed or clear.count(False) > len(rows) - needed
    return Decision(f"{label} > BIM in three rows of four{at}", better >= needed, figures, sure)
