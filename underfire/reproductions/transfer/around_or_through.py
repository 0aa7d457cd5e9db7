"""Attack every input defence around it, through it (BPDA and EOT), and adaptively, and say which defences survive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from underfire.audit.ledger import Ledger
from underfire.audit.transfer import Transfer, transfer
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision
from underfire.reproductions.transfer.defended import DEFENDED, DEFENSES, SOURCE, behind, prepared
from underfire.reproductions.transfer.grid import SMALL, Grid
from underfire.reproductions.transfer.page import HOW, outcome, show
from underfire.reproductions.transfer.parts import part

#: Further defences: those that the literature breaks, and others.
MORE: dict[str, list[dict[str, Any]]] = {
    "crop": [{"name": "crop_ensemble", "share": 0.75, "samples": 10}],
    "JPEG": [{"name": "jpeg", "quality": 75}],
    "TV": [{"name": "total_variation", "steps": 20}],
    "bit depth": [{"name": "bit_depth", "bits": 3}],
    "median": [{"name": "spatial_smoothing"}],
    "non-local means": [{"name": "non_local_means"}],
    "N-version": [{"name": "n_version", "versions": [SOURCE, SOURCE.replace("resnet56", "resnet32")]}],
}
BROKEN = ("crop", "JPEG", "TV", "R&P")
"""The defences that keep 0 % under an adaptive attack in the literature (Athalye et al. 2018)."""

_DRAWS = 5  # of a random defence, over which an attack through it averages in each step

GRID = Grid(
    name="around-or-through",
    data="parquet:{root}/cifar10-test.parquet",
    sources={"ResNet-20": DEFENDED, "ResNet-56": SOURCE},
    victims={
        "undefended": DEFENDED,
        **{label: {**victim, "samples": _DRAWS} for label, victim in behind({**MORE, **DEFENSES}).items()},
    },
    attacks={
        "MI-FGSM": "mi_fgsm",
        "SI-NI-TI-DIM": SMALL["SI-NI-TI-DIM"],
        "PGD-40": {"name": "pgd", "steps": 40},
        "APGD": {"name": "apgd", "steps": 50},
        "Square": {"name": "square", "queries": 250},
    },
    sizes=["8/255"],
    images=(2, 100, 500),
    shard=25,
)

_WAYS = f"""*Around*: crafted on ResNet-20 without the defence, or on ResNet-56. *Through*: the BPDA rule of the
defence, averaged over {_DRAWS} draws of a random one. *Adaptively*: the strongest attack of all, image by image, with
APGD through the defence and Square, which needs no gradient, among them; what is left is the share of images that
withstand everything. A defence *survives* if the lower end of that interval is above 5 %."""
_LEFT = 0.05


_SOURCE = "Athalye, Carlini and Wagner, ICML 2018: crop, JPEG, TV and R&P keep 0 % under an adaptive attack"
_TITLE = "Around or through: which input defences survive"


def run(setting: Setting) -> Outcome:
    """Train the defences that need it, run the audit, and say of every defence what is left."""
    grid = prepared(GRID, setting)
    ledger = grid.run(setting)
    return page(grid, setting, ledger, "", _decided(_found(ledger)))


def page(grid: Grid, setting: Setting, ledger: Ledger, note: str, decisions: Sequence[Decision] = ()) -> Outcome:
    """Return the page of the whole, or of a part of the attacks, which decides nothing."""
    found = _found(ledger)
    title = _TITLE if decisions or not note else f"{_TITLE}, attacked by {' and '.join(grid.attacks)}"
    sentences = "\n".join(f"* {one.sentence}" for one in found.defenses)
    notes = [*([note] if note else []), _WAYS, sentences]
    made = outcome(grid, setting, ledger, decisions, title=title, source=_SOURCE, notes=notes)
    rows = [
        [
            one.victim,
            *(show(share) for share in (one.around, one.through, one.without_bpda, one.left)),
            "hides the gradient" if one.hides else "",
            "survives" if one.left.low > _LEFT else "does not survive",
        ]
        for one in found.defenses
    ]
    columns = ("defence", "around", "through", "through, without BPDA", "left under all", "gradient", "verdict")
    return Outcome(made.title, made.source, made.spec, columns, rows, [HOW, *made.notes[1:]], made.results)


def _found(ledger: Ledger) -> Transfer:
    found = transfer(ledger)
    assert found is not None  # the audit has victims
    return found


def _decided(found: Transfer) -> list[Decision]:
    """Return whether the defences that the literature breaks are broken here."""
    by_name = {one.victim: one for one in found.defenses}
    return [
        Decision(
            f"{name} keeps 0 % under an adaptive attack",
            by_name[name].left.value <= _LEFT,
            f"{show(by_name[name].left)} % left",
            by_name[name].left.high <= _LEFT or by_name[name].left.low > _LEFT,
        )
        for name in BROKEN
        if name in by_name
    ]


PARTS = {
    name: part(GRID, f"{_TITLE}, {what}", source=_SOURCE, attacks=attacks, prepare=prepared, page=page)
    for name, what, attacks in (
        ("transferred", "attacked by MI-FGSM and SI-NI-TI-DIM", ("MI-FGSM", "SI-NI-TI-DIM")),
        ("gradients", "attacked by PGD and APGD", ("PGD-40", "APGD")),
        ("square", "attacked by Square", ("Square",)),
    )
}
"""The parts by name, each with some of the attacks."""
