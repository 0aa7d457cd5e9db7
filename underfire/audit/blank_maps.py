"""Find the maps of a run that show nothing: constant ones, and those with values that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underfire.audit.reading import Source


@dataclass(frozen=True)
class BlankMaps:
    """The images for which an interpreter gave a map that shows nothing, without an attack or after one.

    Attributes:
        interpreter: the label of the interpreter.
        images: number of images that it explained.
        constant: number of those with a constant map, which marks no pixel more than another.
        not_finite: number of those with a map that holds NaN or infinity.
    """

    interpreter: str
    images: int
    constant: int
    not_finite: int


def blank_maps(source: Source) -> list[BlankMaps]:
    """Return the interpreters that gave maps that show nothing, by label.

    IoU is not defined for a map that is constant or not finite, and L1 for one that is not finite.
    """
    if not source.sql("SELECT 1 AS one FROM maps LIMIT 1"):
        return []
    query = """
    SELECT interpreter, count(*) AS images, count(*) FILTER (blank AND NOT broken) AS constant,
           count(*) FILTER (broken) AS not_finite
    FROM (
        SELECT interpreter, id, bool_or(isnan(map_l1)) AS broken, bool_or(isnan(map_iou)) AS blank
        FROM maps GROUP BY interpreter, id
    )
    GROUP BY interpreter HAVING bool_or(blank) ORDER BY interpreter
    """
    return [BlankMaps(**row) for row in source.sql(query)]


def say_blank(found: Sequence[BlankMaps]) -> list[str]:
    """Return one sentence for each interpreter that gave maps that show nothing.

    >>> say_blank([BlankMaps("cam", 60, 12, 1)])
    ['The cam map of 13 of 60 images shows nothing, before or after an attack (12 constant, 1 with NaN or infinity); its IoU is not known there.']
    """  # noqa: E501
    sentences = []
    for entry in found:
        counts = [f"{entry.constant} constant"] if entry.constant else []
        counts += [f"{entry.not_finite} with NaN or infinity"] if entry.not_finite else []
        share = f"{entry.constant + entry.not_finite} of {entry.images} images"
        what = f"The {entry.interpreter} map of {share} shows nothing, before or after an attack"
        sentences.append(f"{what} ({', '.join(counts)}); its IoU is not known there.")
    return sentences
