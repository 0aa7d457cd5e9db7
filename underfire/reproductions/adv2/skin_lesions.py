"""Attack a classifier of skin lesions and its explanations: how much of each map lies on the lesion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from underfire import data, models
from underfire.audit.ledger import Ledger
from underfire.measures.statistics import bootstrap_mean, paired_difference
from underfire.reproductions.adv2.findings import audited, outcome, shift
from underfire.reproductions.adv2.system import LARGE, System
from underfire.reproductions.adv2.table import SOURCE, show
from underfire.reproductions.registry import Outcome, Setting
from underfire.training import linear_head

NETWORK = "efficientnet_lite0_imagenet"
FOLDER = "folder:{root}/skin_lesions/isic2017?size=224&masks={root}/skin_lesions/isic2017_masks"
# A run of usual size takes 40 of the 98 photographs.
SKIN = System(NETWORK, FOLDER, 40, LARGE, measures=("mass_inside",), full=98)

_HOW = """The mass on the lesion is the share of a map's sum inside the mask that an expert drew. Only images that the
classifier gets right count. Brackets are 95 % intervals: Clopper-Pearson for success, BCa bootstrap for means."""

_WHY = """The paper attacks a ResNet-50 that came second in the ISIC 2018 challenge (82.27 % weighted accuracy, seven
classes). Here a linear head on a frozen EfficientNet-lite0 was fitted to the 98 photographs of ISIC 2017 themselves, so
the attacked classifier knows these images; its accuracy on images it has not seen is the cross-validated one. MASK, on
which ADV² takes as long as on all others together, is left out."""


def run(setting: Setting) -> Outcome:
    """Fit the head, audit the classifier, and compare the maps with the masks of the experts."""
    uri, head = classifier(setting)
    system = replace(SKIN, uri=uri).at(setting)
    results: dict[str, Any] = {"head": head, "lesion": _lesion(setting)}
    rows: list[list[str]] = []
    for label, aim in system.aims.items():
        # only the maps that this attack is aimed at are needed
        ledger, attack = audited(system.only(label), setting), f"ADV² on {label}"
        results |= {name: outcome(ledger, name) for name in ("PGD", attack)}
        for form in (label, *aim.measured):
            results[form] = on_lesion(ledger, attack, form) | shift(ledger, ("PGD", attack), form)
            inside = results[form]["mass_inside"]
            success = [show(results[attack][name]) for name in ("success", "confidence")]
            distances = [show(results[form]["map_l1"][name]) for name in ("PGD", attack)]
            iou = [show(results[form]["map_iou"][name]) for name in ("PGD", attack)]
            masses = [show(inside[name]) for name in ("clean", "PGD", attack)]
            rows.append([form, *success, *masses, *distances, *iou])
    return Outcome(
        title="Skin lesions: the diagnosis changes, the explanation stays on the lesion",
        source=f"{SOURCE}, section 4 and Figure 7",
        spec={"audit": system.spec(setting) | {"model": f"{NETWORK} with a linear head"}},
        columns=(
            "maps of",
            "success of ADV²",
            "confidence",
            "mass on the lesion, clean",
            "under PGD",
            "under ADV²",
            "map L1, PGD",
            "map L1, ADV²",
            "IoU, PGD",
            "IoU, ADV²",
        ),
        rows=rows,
        notes=[_about(results), _HOW, _WHY],
        results=results,
    )


def _about(results: dict[str, Any]) -> str:
    """Return a sentence about PGD, a sentence about chance, and a sentence about the classifier."""
    success, head = results["PGD"]["success"], results["head"]
    return (
        f"PGD succeeds on {show(success)} of n = {success.n} images. A map that knows nothing has "
        f"{results['lesion']:.3f} of its mass on the lesion, the mean share of the image. The cross-validated "
        f"accuracy of the head is {head['accuracy']}, that of balanced classes {head['balanced accuracy']:.3f}; "
        f"the largest class is {head['majority']:.3f} of the images."
    )


def _lesion(setting: Setting) -> float:
    """Return the mean share of the images that the lesions cover."""
    masks = [batch.mask for batch in data.load(FOLDER.format(root=setting.root)).batches(50)]
    return float(torch.cat([mask.float().mean((1, 2, 3)) for mask in masks if mask is not None]).mean())


def classifier(setting: Setting) -> tuple[str, dict[str, Any]]:
    """Return the URI of the classifier with its head, and its accuracies; a later run reads both from their files."""
    folder = setting.work / f"skin-lesions-{setting.seed}"
    weights, accuracies = folder / "skin_lesions.safetensors", folder / "accuracy.json"
    if not accuracies.is_file():
        base = models.load(f"{setting.root}/weights/{NETWORK}.safetensors?arch={NETWORK}", device=setting.device)
        images = data.load(FOLDER.format(root=setting.root))
        head = linear_head(
            base,
            images,
            seed=setting.seed,
            progress=lambda done, total: setting.progress(done, total, "features"),
        )
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in head.classifier.module.state_dict().items()}, weights)
        Path(folder / "classes.json").write_text(json.dumps(list(images.labels or ())), encoding="utf-8")
        found = {
            "accuracy": str(head.accuracy),
            "balanced accuracy": head.balanced_accuracy,
            "majority": head.majority,
        }
        accuracies.write_text(json.dumps(found), encoding="utf-8")
    return f"{weights}?arch={NETWORK}&num_classes=3", json.loads(accuracies.read_text(encoding="utf-8"))


def on_lesion(ledger: Ledger, attack: str, interpreter: str) -> dict[str, Any]:
    """Return the share of the maps' mass inside the masks, on clean images, after PGD and after ADV²."""
    mass: dict[str, dict[str, tuple[float, float]]] = {}
    for label in ("PGD", attack):
        rows = ledger.sql(
            f"SELECT maps.id, mass_inside_clean, mass_inside_adv "
            f"FROM maps JOIN (SELECT DISTINCT id, y, pred_clean FROM rows) USING (id) "
            f"WHERE label = '{label}' AND interpreter = '{interpreter}' AND pred_clean = y ORDER BY maps.id"
        )
        mass[label] = {row["id"]: (row["mass_inside_clean"], row["mass_inside_adv"]) for row in rows}
    clean = [before for before, _ in mass["PGD"].values()]
    pgd, adv2 = ([after for _, after in mass[label].values()] for label in ("PGD", attack))
    return {
        "mass_inside": {
            "clean": bootstrap_mean(clean),
            "PGD": bootstrap_mean(pgd),
            attack: bootstrap_mean(adv2),
            "PGD - clean": paired_difference(pgd, clean),
            "ADV² - clean": paired_difference(adv2, clean),
        }
    }
