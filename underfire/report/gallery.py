"""The gallery: for a few images, a table of pictures with the adversarial images, the perturbations and the maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from underfire.audit.reading import AttackResult, largest
from underfire.figures.overlay import heatmap, magnify, to_data_uri, to_image
from underfire.measures.maps import normalise
from underfire.report import words

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger

COLUMNS = 3
SAMPLES = 6
_PHOTOGRAPH, _LARGEST = 128, 320  # sides in pixels: the smallest that is compressed, and the largest on the page


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its data URI, its alternative text, its size in pixels, and the note below it."""

    uri: str
    alt: str
    width: int
    height: int
    note: str = ""


@dataclass(frozen=True)
class Column:
    """The head of a column: an attack, or none, with its size, and the model's prediction."""

    name: str
    size: str
    predicted: str
    sure: str
    fooled: bool


@dataclass(frozen=True)
class Sample:
    """The table of one image: a column for the clean image and for every attack, a row for every kind of picture.

    A picture is None where there is none.
    """

    title: str
    columns: list[Column]
    rows: list[tuple[str, list[Picture | None]]]


@dataclass(frozen=True)
class _Shot:
    """One image under one attack: its tensors without a batch axis, and its row of the ledger.

    `aim` is the interpreter that the attack is aimed at; empty if none.
    """

    result: AttackResult
    aim: str
    tensors: dict[str, Tensor]
    row: dict[str, Any]


def samples(ledger: Ledger, results: Sequence[AttackResult], labels: Sequence[str] | None) -> list[Sample]:
    """Return the tables of the first images that are stored for all chosen attacks; empty if the run stored none."""
    aims = {row["label"]: row["attacked"] for row in ledger.sql("SELECT DISTINCT label, attacked FROM rows")}
    found = [_shots(ledger, result, aims.get(result.label, "")) for result in _chosen(results, aims)]
    found = [shots for shots in found if shots]
    ids = [name for name in found[0] if all(name in shots for shots in found)] if found else []
    interpreters = [entry.title for entry in ledger.spec.interpreters]
    return [_sample(name, [shots[name] for shots in found], interpreters, labels) for name in ids[:SAMPLES]]


def _chosen(results: Sequence[AttackResult], aims: Mapping[str, str]) -> list[AttackResult]:
    """Return the strongest plain attack and the attacks aimed at an interpreter; if there are none, the strongest."""
    ranked = sorted(largest(results), key=lambda h: (h.robust.value, -np.nan_to_num(h.confidence)))
    plain, aimed = ([h for h in ranked if bool(aims.get(h.label)) is which] for which in (False, True))
    return (plain[:1] + aimed if aimed else plain)[:COLUMNS]


def _shots(ledger: Ledger, result: AttackResult, aim: str) -> dict[str, _Shot]:
    """Return the stored images of an attack at one size, by name; of several seeds, those of the first."""
    shots: dict[str, _Shot] = {}
    query = "SELECT DISTINCT seed, cell, label, norm, eps FROM rows ORDER BY seed, cell"
    for place in ledger.sql(query):
        if (place["label"], place["norm"], place["eps"]) != (result.label, result.norm, result.eps):
            continue
        tensors = ledger.gallery(place["cell"])
        ids = ledger.gallery_ids(place["cell"])
        query = f"SELECT * FROM rows WHERE cell = '{place['cell']}' AND eps = {place['eps']!r}"
        rows = {row["id"]: row for row in ledger.sql(query) if row["label"] == result.label} if ids else {}
        for i, name in enumerate(ids):
            shots.setdefault(name, _Shot(result, aim, {key: value[i] for key, value in tensors.items()}, rows[name]))
    return shots


def _sample(name: str, shots: Sequence[_Shot], interpreters: Sequence[str], labels: Sequence[str] | None) -> Sample:
    """Return the table of the image `name`, of which every attack has one of the `shots`."""
    first = shots[0]
    x, truth = first.tensors["x"], words.class_name(first.row["y"], labels)
    columns = [_column("Clean", "no attack", first.row, "clean", labels)]
    columns += [_column(s.result.label, words.threat(s.result.norm, s.result.eps), s.row, "adv", labels) for s in shots]
    images = [_picture(x, f"The clean image, of class {truth}")]
    images += [
        _picture(s.tensors["x_adv"], f"The image attacked by {c.name} at {c.size}, classified as {c.predicted}")
        for s, c in zip(shots, columns[1:], strict=True)
    ]
    rows: list[tuple[str, list[Picture | None]]] = [
        ("Image", [*images]),
        ("Magnified change", [None, *(_change(s) for s in shots)]),
        *(
            (f"{name} map", [_map(first, name, "clean"), *(_map(s, name, "adv") for s in shots)])
            for name in interpreters
        ),
    ]
    return Sample(f"{truth} ({name})", columns, rows)


def _column(name: str, size: str, row: Mapping[str, Any], when: str, labels: Sequence[str] | None) -> Column:
    predicted = row[f"pred_{when}"]
    sure = f"conf. {row[f'conf_{when}']:.2f}"
    return Column(name, size, words.class_name(predicted, labels), sure, predicted != row["y"])


def _picture(image: Tensor, alt: str, note: str = "") -> Picture:
    """Return a small image exactly, and a large one scaled down and compressed."""
    if max(image.shape[-2:]) < _PHOTOGRAPH:
        return Picture(to_data_uri(image), alt, int(image.shape[-1]), int(image.shape[-2]), note)
    photograph, buffer = to_image(image), io.BytesIO()
    photograph.thumbnail((_LARGEST, _LARGEST))
    photograph.save(buffer, format="WEBP", quality=88)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(uri, alt, *photograph.size, note)


def _change(shot: _Shot) -> Picture:
    """Return the magnified perturbation."""
    shown, factor = magnify(shot.tensors["x"], shot.tensors["x_adv"])
    alt = f"The perturbation of {shot.result.label}, magnified {factor:.0f} times around grey"
    return _picture(shown, alt, f"× {factor:.0f}")


def _map(shot: _Shot, interpreter: str, when: str) -> Picture | None:
    """Return the map laid over the image that it explains; None if there is no map, or it is not finite."""
    m, image = shot.tensors.get(f"map_{when}.{interpreter}"), shot.tensors["x" if when == "clean" else "x_adv"]
    if m is None or not bool(m.isfinite().all()):
        return None
    aimed = ", which is aimed at this map" if shot.aim == interpreter else ""
    of = "the clean image" if when == "clean" else f"the image attacked by {shot.result.label}{aimed}"
    return _picture(heatmap(normalise(m[None])[0], image), f"{interpreter} map of {of}, laid over it")
