"""Raise the weight of the attention distance, to see whether it would help transfer if it counted for more."""

from __future__ import annotations

from dataclasses import replace

from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer import cifar10
from underfire.reproductions.transfer.claims import above
from underfire.reproductions.transfer.grid import means_of
from underfire.reproductions.transfer.page import outcome

WEIGHTS = (10, 100, 1000)
"""Weights of the distance of attention maps; 1 is that of `transfer-cifar10`."""

_PART = cifar10.GRID.only(sources=["ResNet-20"], attacks=[cifar10.BASE, "TAP", "ATA", "TAP+ATA"])
GRID = replace(
    _PART,
    sizes=["8/255"],
    attacks={
        **_PART.attacks,
        **{f"ATA, weight {weight}": {"name": "ata", "weight": weight} for weight in WEIGHTS},
        **{f"TAP+ATA, weight {weight}": {"name": "tap_ata", "ata_weight": weight} for weight in WEIGHTS},
    },
)

_WHY = """ATA adds the distance between the attention maps of the clean and of the attacked image to the loss, with a
weight, here of 1 unless the attack says another one. If this weight were too small, a larger one would fool more
images of other networks. The claims compare each weight with the same attack without the distance."""


def run(setting: Setting) -> Outcome:
    """Attack a CIFAR-10 network with growing weights of ATA, alone and beside TAP, and measure the transfer."""
    grid = GRID.at(setting)
    ledger = grid.run(setting)
    means = means_of(grid, ledger)
    decisions = [
        above(f"{label} > {base}", means[label], means[base])
        for base, start in ((cifar10.BASE, "ATA"), ("TAP", "TAP+ATA"))
        for label in means
        if label == start or label.startswith(f"{start},")
    ]
    return outcome(
        grid,
        setting,
        ledger,
        decisions,
        title="Whether a larger weight of attention distances helps transfer",
        source="no published numbers for these networks",
        notes=[_WHY],
    )
