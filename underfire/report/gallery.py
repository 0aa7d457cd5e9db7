"""The gallery: for a few images, a table of pictures with the adversarial images, the perturbations and the maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from underfire.audit.aims import aims_at
from underfire.audit.summary import Findings
from underfire.figures.overlay import heatmap, magnify
from underfire.report import selection, words
from underfire.report.pictures import Drawing, Picture, encode, step
from underfire.report.shots import Shot, shots

if TYPE_CHECKING:
    from underfire.audit.ledger import Ledger


@dataclass(frozen=True)
class Column:
    """The head of a column: an attack, or none, with its size, and the model's prediction."""

    name: str
    size: str
    predicted: str
    sure: str
    fooled: bool


@dataclass(frozen=True)
class Row:
    """Pictures of one kind.

    Attributes:
        name: the kind in a few words.
        pictures: a picture for every column; None where there is none.
        scale: the colours of a map, `"sequential"` or `"diverging"`; empty for other pictures.
    """

    name: str
    pictures: list[Picture | None]
    scale: str = ""


@dataclass(frozen=True)
class Sample:
    """The table of one image: a column for the clean image and for every attack, a row for every kind of picture."""

    title: str
    columns: list[Column]
    rows: list[Row]


@dataclass(frozen=True)
class Gallery:
    """The tables of the chosen images, and one sentence on what was chosen and what was left out."""

    told: str = ""
    samples: list[Sample] = field(default_factory=list)


_Rows = list[tuple[str, str, list[Drawing | None]]]  # the name, the scale and the drawings of every row


def gallery(ledger: Ledger, found: Findings, labels: Sequence[str] | None) -> Gallery:
    """Return the tables of images that are right before the attack, first those on which the headline rests.

    The attacks and the interpreter of the headline come first. The gallery is empty if the run stored no such image.
    """
    of = selection.basis(found)
    aims = {row["label"]: row["attacked"] for row in ledger.sql("SELECT DISTINCT label, attacked FROM rows")}
    chosen = selection.attacks(found, of, {label for label, aim in aims.items() if aim})
    columns = [images for hit in chosen if (images := shots(ledger, hit, aims[hit.label]))]
    # choose the images, by what the attacks of the columns did
    hits = [next(iter(images.values())).result for images in columns]
    of = replace(of, attacks=[hit for hit in of.attacks if hit in hits])
    names = [name for name in columns[0] if all(name in images for images in columns)] if columns else []
    tables = [[images[name] for images in columns] for name in names]
    tables = sorted(tables, key=lambda table: -_support(of, table))[: ledger.spec.gallery]
    if not tables:
        return Gallery()
    # draw them
    titles = sorted((entry.title for entry in ledger.spec.interpreters), key=lambda title: title != of.interpreter)
    signed = {title: any(_negative(shot, title) for table in tables for shot in table) for title in titles}
    drawn = (_rows(table, signed, labels) for table in tables)
    first = next(drawn)
    at = step([drawing.image for _, _, row in first for drawing in row if drawing], len(tables))
    samples = [
        Sample(
            f"{words.class_name(table[0].row['y'], labels)} ({table[0].row['id']})",
            _columns(table, labels),
            [
                Row(name, [encode(drawing, at) if drawing else None for drawing in row], scale)
                for name, scale, row in rows
            ],
        )
        for table, rows in zip(tables, [first, *drawn], strict=True)
    ]
    # say what was chosen
    (count,) = ledger.sql("SELECT count(*) AS n, count(*) FILTER (pred <> y) AS wrong FROM clean")
    left_out = {hit.label for hit in found.attacks} - {hit.label for hit in hits}
    resting = sum(_support(of, table) == len(of.attacks) for table in tables)
    right, wrong = count["n"] - count["wrong"], count["wrong"]
    told = selection.told(of, shown=len(tables), resting=resting, right=right, wrong=wrong, left_out=len(left_out))
    return Gallery(told, samples)


def _support(of: selection.Basis, table: Sequence[Shot]) -> int:
    """Return how many attacks of the headline did to an image what the headline says."""
    return sum(bool(shot.row["success"]) != of.withstood for shot in table if shot.result in of.attacks)


def _negative(shot: Shot, interpreter: str) -> bool:
    """Return whether a map of the interpreter has negative values."""
    maps = (shot.tensors.get(f"map_{when}.{interpreter}") for when in ("clean", "adv"))
    return any(m is not None and bool((m < 0).any()) for m in maps)


def _columns(table: Sequence[Shot], labels: Sequence[str] | None) -> list[Column]:
    clean = _column("Clean", "no attack", table[0].row, "clean", labels)
    return [
        clean,
        *(_column(s.result.label, words.threat(s.result.norm, s.result.eps), s.row, "adv", labels) for s in table),
    ]


def _column(name: str, size: str, row: Mapping[str, Any], when: str, labels: Sequence[str] | None) -> Column:
    predicted = row[f"pred_{when}"]
    sure = f"conf. {row[f'conf_{when}']:.2f}"
    return Column(name, size, words.class_name(predicted, labels), sure, predicted != row["y"])


def _rows(table: Sequence[Shot], signed: Mapping[str, bool], labels: Sequence[str] | None) -> _Rows:
    """Return the drawings of one image, of which every attack has one entry of `table`."""
    first = table[0]
    images: list[Drawing | None] = [
        Drawing(first.tensors["x"], f"The clean image, of class {words.class_name(first.row['y'], labels)}"),
        *(
            Drawing(
                s.tensors["x_adv"],
                f"The image attacked by {s.result.label} at {words.threat(s.result.norm, s.result.eps)}, classified as "
                f"{words.class_name(s.row['pred_adv'], labels)}",
            )
            for s in table
        ),
    ]
    maps: _Rows = [
        (
            f"{name} map",
            "diverging" if negative else "sequential",
            [_map(first, name, "clean", negative), *(_map(s, name, "adv", negative) for s in table)],
        )
        for name, negative in signed.items()
    ]
    return [("Image", "", images), ("Change", "", [None, *map(_change, table)]), *maps]


def _change(shot: Shot) -> Drawing:
    """Return the magnified perturbation."""
    shown, factor = magnify(shot.tensors["x"], shot.tensors["x_adv"])
    alt = f"The perturbation of {shot.result.label}, magnified {factor:.0f} times around grey"
    return Drawing(shown, alt, f"× {factor:.0f}")


def _map(shot: Shot, interpreter: str, when: str, signed: bool) -> Drawing | None:
    """Return the map laid over the image that it explains; None if there is no map, or it is not finite."""
    m, image = shot.tensors.get(f"map_{when}.{interpreter}"), shot.tensors["x" if when == "clean" else "x_adv"]
    if m is None or not bool(m.isfinite().all()):
        return None
    aimed = ", which is aimed at this map" if aims_at(shot.aim, interpreter) else ""
    of = "the clean image" if when == "clean" else f"the image attacked by {shot.result.label}{aimed}"
    overlap = shot.overlaps.get(interpreter, math.nan) if when == "adv" else math.nan
    note = "" if math.isnan(overlap) else f"IoU {overlap:.2f}"
    return Drawing(heatmap(m, image, signed=signed), f"{interpreter} map of {of}, laid over it", note)
