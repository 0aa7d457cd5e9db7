"""Read the images that a run stored for the gallery, each with its outcome and the IoUs of its maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from underfire.audit.reading import AttackResult

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger


@dataclass(frozen=True)
class Shot:
    """One image under one attack.

    Attributes:
        result: the attack at its size.
        aim: the interpreters that it is aimed at (`aims.joined`); empty if none.
        tensors: the image, its adversarial image and their maps, without a batch axis, as `Ledger.gallery` names them.
        row: the row of the image in the table `rows`.
        overlaps: for each interpreter, the IoU of the map with the clean map.
    """

    result: AttackResult
    aim: str
    tensors: dict[str, Tensor]
    row: dict[str, Any]
    overlaps: dict[str, float]


def shots(ledger: Ledger, result: AttackResult, aim: str) -> dict[str, Shot]:
    """Return the stored images of an attack at one size that are right before it, by name; of several seeds, the first.

    Args:
        ledger: the run.
        result: the attack at its size.
        aim: the interpreters that it is aimed at.
    """
    found: dict[str, Shot] = {}
    for place in ledger.sql("SELECT DISTINCT seed, cell, label, norm, eps FROM rows ORDER BY seed, cell"):
        if (place["label"], place["norm"], place["eps"]) != (result.label, result.norm, result.eps):
            continue
        if not (ids := ledger.gallery_ids(place["cell"])):
            continue
        tensors, where = ledger.gallery(place["cell"]), f"cell = '{place['cell']}' AND eps = {place['eps']!r}"
        rows = {row["id"]: row for row in ledger.sql(f"SELECT * FROM rows WHERE {where}")}
        overlaps: dict[str, dict[str, float]] = {}
        for entry in ledger.sql(f"SELECT id, interpreter, map_iou FROM maps WHERE {where}"):
            overlaps.setdefault(entry["id"], {})[entry["interpreter"]] = entry["map_iou"]
        for i, name in enumerate(ids):
            row = rows.get(name)  # an image that has the class which the attack wants has none
            if row and row["pred_clean"] == row["y"]:
                own = _at(row, {key: value[i] for key, value in tensors.items()})
                found.setdefault(name, Shot(result, aim, own, row, overlaps.get(name, {})))
    return found


def _at(row: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors at the size of a row: an attack that needs a larger size has left the image as it was."""
    if row["linf"]:
        return tensors
    clean = {name.replace("_clean.", "_adv."): value for name, value in tensors.items() if "_clean." in name}
    return {**tensors, **clean, "x_adv": tensors["x"]}
