"""The gallery: a few images with what each attack did to them and to their explanations, as tables of pictures."""

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
_PHOTOGRAPH, _LARGEST = 128, 320  # pixels: from where on a picture is compressed, and how large it is at most


@dataclass(frozen=True)
class Picture:
    """An image of the page: its data URI, its alternative text, its size in pixels, and what is written under it."""

    uri: str
    alt: str
    width: int
    height: int
    note: str = ""


@dataclass(frozen=True)
class Column:
    """What was done to the image (nothing, or one attack) and what the model says then."""

    name: str
    size: str
    predicted: str
    sure: str
    fooled: bool


@dataclass(frozen=True)
class Sample:
    """One image: a column for it and for every attack, a row for every kind of picture (None where there is none)."""

    title: str
    columns: list[Column]
    rows: list[tuple[str, list[Picture | None]]]


@dataclass(frozen=True)
class _Shot:
    """One image under one attack: its tensors without a batch axis, and its row of the ledger."""

    result: AttackResult
    aim: str
    tensors: dict[str, Tensor]
    row: dict[str, Any]


def samples(ledger: Ledger, results: Sequence[AttackResult], labels: Sequence[str] | None) -> list[Sample]:
    """Return the first images of which the chosen attacks kept pictures; an empty list if the run kept none."""
    aims = {row["label"]: row["attacked"] for row in ledger.sql("SELECT DISTINCT label, attacked FROM rows")}
    found = [_shots(ledger, result, aims.get(result.label, "")) for result in _chosen(results, aims)]
    found = [shots for shots in found if shots]
    ids = [name for name in found[0] if all(name in shots for shots in found)] if found else []
    interpreters = [entry.title for entry in ledger.spec.interpreters]
    return [_sample(name, [shots[name] for shots in found], interpreters, labels) for name in ids[:SAMPLES]]


def _chosen(results: Sequence[AttackResult], aims: Mapping[str, str]) -> list[AttackResult]:
    """Return the strongest plain attack and those on an explanation; without the latter, the strongest attacks."""
    ranked = sorted(largest(results), key=lambda h: (h.robust.value, -np.nan_to_num(h.confidence)))
    plain, aimed = ([h for h in ranked if bool(aims.get(h.label)) is which] for which in (False, True))
    return (plain[:1] + aimed if aimed else plain)[:COLUMNS]


def _shots(ledger: Ledger, result: AttackResult, aim: str) -> dict[str, _Shot]:
    """Return what the cells of an attack at one size kept, by the name of the image; of several seeds, the first."""
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
    first = shots[0]
    x, truth = first.tensors["x"], words.class_name(first.row["y"], labels)
    columns = [_column("Benign", "no attack", first.row, "clean", labels)]
    columns += [_column(s.result.label, words.threat(s.result.norm, s.result.eps), s.row, "adv", labels) for s in shots]
    images = [_picture(x, f"The image without an attack, of class {truth}")]
    images += [
        _picture(s.tensors["x_adv"], f"The image after {c.name} at {c.size}, classified as {c.predicted}")
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
    if max(image.shape[-2:]) < _PHOTOGRAPH:
        return Picture(to_data_uri(image), alt, int(image.shape[-1]), int(image.shape[-2]), note)
    photograph, buffer = to_image(image), io.BytesIO()
    photograph.thumbnail((_LARGEST, _LARGEST))
    photograph.save(buffer, format="WEBP", quality=88)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(uri, alt, *photograph.size, note)


def _change(shot: _Shot) -> Picture:
    shown, factor = magnify(shot.tensors["x"], shot.tensors["x_adv"])
    alt = f"What {shot.result.label} changed, {factor:.0f} times magnified around grey"
    return _picture(shown, alt, f"× {factor:.0f}")


def _map(shot: _Shot, interpreter: str, when: str) -> Picture | None:
    """Return the map over the image it explains; None if there is no map, or none that can be drawn."""
    m, image = shot.tensors.get(f"map_{when}.{interpreter}"), shot.tensors["x" if when == "clean" else "x_adv"]
    if m is None or not bool(m.isfinite().all()):
        return None
    aimed = ", which aims at it" if shot.aim == interpreter else ""
    of = "the benign image" if when == "clean" else f"the image after {shot.result.label}{aimed}"
    return _picture(heatmap(normalise(m[None])[0], image), f"{interpreter} map of {of}, laid over it")
