"""Show transferred attacks to a network behind each input defence (Wu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from underfire.reproductions.registry import Experiment, Outcome, Setting, table
from underfire.reproductions.transfer import trained
from underfire.reproductions.transfer.claims import in_order
from underfire.reproductions.transfer.grid import SMALL, Grid, means_of
from underfire.reproductions.transfer.page import outcome
from underfire.reproductions.transfer.parts import part

_FILE = "{root}/weights/%s.safetensors?arch=%s"
DEFENDED, SOURCE = (_FILE % (2 * (f"resnet{depth}_cifar10",)) for depth in (20, 56))

#: The defences of the slides' table, in front of ResNet-20.
DEFENSES: dict[str, list[dict[str, Any]]] = {
    "HGD": [{"name": "hgd", "weights": "{work}/hgd-cifar10-{scale}.safetensors"}],
    "R&P": [{"name": "resize_and_pad"}],
    "NIPS-r3": [{"name": "nips_r3"}],
    "FD": [{"name": "feature_distillation"}],
    "ComDefend": [{"name": "comdefend", "weights": "{work}/comdefend-cifar10-{scale}.safetensors"}],
    "RS": [{"name": "randomised_smoothing", "sigma": trained.SIGMA, "samples": 20}],
}

_NOISY = "{work}/noisy-cifar10-{scale}.safetensors?arch=resnet20_cifar10"


def behind(defenses: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return ResNet-20 behind each of the defences, as entries of a spec; that of RS was trained with noise."""
    return {
        label: {"model": _NOISY if label == "RS" else DEFENDED, "defenses": entries}
        for label, entries in defenses.items()
    }


PUBLISHED = {
    "FGSM": (8.9, 16.8, 23.1, 19.2, 13.4, 6.8),
    "BIM": (12.1, 19.3, 23.8, 21.8, 17.2, 8.9),
    "TIM": (73.3, 69.8, 79.4, 78.2, 69.2, 36.2),
    "ATTA": (85.9, 83.2, 89.5, 84.4, 79.9, 47.4),
}
ORDER = ("FGSM", "I-FGSM (BIM)", "TIM", "ATTA")
"""The order of the averages over defences that must hold."""
EQUAL: dict[str, Any] = {"TIM, no momentum": {"name": "i_ti", "size": 3}, "ATTA, momentum": "mi_at"}
"""TIM has momentum and ATTA has none, so each is also compared with the other one at equal terms."""

GRID = Grid(
    name="transfer-defended",
    data="parquet:{root}/cifar10-test.parquet",
    sources={"ResNet-56": SOURCE},
    victims={
        "undefended": DEFENDED,
        **{label: {**victim, "through": False} for label, victim in behind(DEFENSES).items()},
    },
    attacks=SMALL | EQUAL,
    sizes=["8/255"],
    images=(2, 500, 1000),
)


def prepared(grid: Grid, setting: Setting) -> Grid:
    """Return the grid of a run, whose trained defences are trained; a quick run leaves them out."""
    if setting.quick:
        kept = {label: v for label, v in grid.victims.items() if "{work}" not in repr(v)}
        return replace(grid, victims=kept).at(setting)
    trained.train_missing(setting, DEFENDED.format(root=setting.root))
    return grid


_SOURCE = "slides on ATTA (Wu et al., CVPR 2021), table 'Attack transformation-based defenses'"
_MOMENTUM = """ATTA takes plain steps, as in the algorithm of the slides, and TIM has momentum, as published. MI-FGSM,
which has the momentum alone, is in the table. The last two claims compare the two ideas with momentum for
both or for neither."""
_COMPOSED = ("SI-NI-TI-DIM", "ATTA", "AT-SI-NI-TI-DIM", "ATTA, momentum")


def measure_training(setting: Setting) -> Outcome:
    """Train what the defences need, and measure the accuracy of the network behind each defence."""
    victims = {"none": {"model": DEFENDED, "defenses": []}, **behind(DEFENSES)}
    return trained.accuracies(setting, DEFENDED.format(root=setting.root), victims, _SOURCE)


PARTS = {
    "training": Experiment(
        "Train HGD, ComDefend and the network for RS, before the other parts of transfer-defended run at once.",
        measure_training,
    ),
    "single": part(
        GRID,
        "Attacks of one idea on a network behind input defences",
        source=_SOURCE,
        attacks=[label for label in GRID.attacks if label not in _COMPOSED],
        prepare=prepared,
    ),
    "composed": part(
        GRID,
        "ATTA and compositions on a network behind input defences",
        source=_SOURCE,
        attacks=_COMPOSED,
        prepare=prepared,
    ),
}


def run(setting: Setting) -> Outcome:
    """Train the defences that need it, run the audit, and compare the averages over the defences."""
    grid = prepared(GRID, setting)
    ledger, defenses = grid.run(setting), [label for label in DEFENSES if label in grid.victims]
    means = means_of(grid, ledger, victims=defenses)
    rows = [
        [label, f"{100 * np.mean(means[label]):.1f}", f"{np.mean(known):.1f}", *(f"{value:.1f}" for value in known)]
        for label, known in zip(ORDER, PUBLISHED.values(), strict=True)
        if label in means
    ]
    beside = table(("attack", "ours, average", "theirs, average", *DEFENSES), rows)
    decisions = [
        one
        for order in (ORDER, ("TIM, no momentum", "ATTA"), ("TIM", "ATTA, momentum"))
        for one in in_order(order, means, what=" on average over the defences")
    ]
    return outcome(
        grid,
        setting,
        ledger,
        decisions,
        title="Transferred attacks on a network behind input defences",
        source=_SOURCE,
        notes=[_MOMENTUM, f"**The averages over the defences, beside the published ones** (in per cent)\n\n{beside}"],
    )
