"""Craft attacks on each of four ImageNet networks, and show the images to the others (the field's ResNet-50 table)."""

from __future__ import annotations

from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer import field
from underfire.reproductions.transfer.claims import in_order
from underfire.reproductions.transfer.grid import ATTACKS, MODERN, Grid, means_of
from underfire.reproductions.transfer.page import outcome
from underfire.reproductions.transfer.parts import part

_FILE = "{root}/weights/%s.safetensors?arch=%s"
NETWORKS = {
    label: _FILE % (name, name)
    for label, name in {
        "MobileNet v1": "mobilenet_v1_075_imagenet",
        "MobileNet v2": "mobilenet_v2_imagenet",
        "EfficientNet-lite0": "efficientnet_lite0_imagenet",
        "SqueezeNet 1.1": "squeezenet11_imagenet",
    }.items()
}
ENSEMBLES = {f"all but {label}": [uri for other, uri in NETWORKS.items() if other != label] for label in NETWORKS}

GRID = Grid(
    name="transfer-imagenet",
    data="folder:{root}/imagenet_sample?size=224",
    sources=NETWORKS,
    victims=NETWORKS,
    attacks=ATTACKS,
    sizes=["16/255"],
    images=(2, 200, 400),
    samples=3,
    copies=3,
    shard=10,
)
#: Ensembles of three networks, whose images the fourth sees.
TOGETHER = Grid(
    name="transfer-imagenet-ensembles",
    data=GRID.data,
    sources=ENSEMBLES,
    victims=NETWORKS,
    attacks={"MI-FGSM": "mi_fgsm", "DIM": "dim"},
    sizes=GRID.sizes,
    images=GRID.images,
    shard=10,
    more={"model": NETWORKS["MobileNet v1"]},
)
ORDER = ("I-FGSM (BIM)", "MI-FGSM", "DIM", "SIA", "OPS"), ("DIM", "BSR", "OPS")
"""The orders of the field's table that must hold."""


_SOURCE = "Trustworthy-AI-Group, TransferAttack, the table of a ResNet-50 source (2026-02)"
_CUT = """In a run of usual size, attacks average over at most 3 samples and 3 scaled copies, where most papers have 20
and 5, because all of them would take two cores more than a day. The steps (10) and the size are the published ones.
Fewer samples weaken the attacks that average over many, such as SIA, BSR and OPS, so that their lead is larger in the
papers."""
_WORDS = {"MobileNet v1": "mobilenet-v1", "MobileNet v2": "mobilenet-v2", "EfficientNet-lite0": "efficientnet"}
PARTS = {
    f"{_WORDS.get(label, 'squeezenet')}{group}": part(
        GRID, f"Transfer from {label}: {what}", source=_SOURCE, sources=[label], attacks=attacks
    )
    for label in NETWORKS
    for group, what, attacks in (
        ("", "FGSM to ATTA (2015 to 2021)", [name for name in ATTACKS if name not in MODERN]),
        ("-modern", "Admix to OPS (2021 to 2025)", MODERN),
    )
} | {"ensembles": part(TOGETHER, "Transfer from ensembles of three ImageNet networks to the fourth", source=_SOURCE)}
"""The parts by name: for each network the older attacks and the newer ones, and the ensembles."""


def run(setting: Setting) -> Outcome:
    """Run the audits of single sources and of ensembles of three."""
    grid, several = GRID.at(setting), TOGETHER.at(setting)
    ledger = grid.run(setting)
    means = means_of(grid, ledger)
    together = {f"ensemble, {label}": row for label, row in means_of(several, several.run(setting)).items()}
    decisions = [one for order in ORDER for one in in_order(order, means)]
    return outcome(
        grid,
        setting,
        ledger,
        decisions,
        title="Transfer between four ImageNet networks",
        source=_SOURCE,
        notes=[_CUT, field.beside({**means, **together})],
    )
